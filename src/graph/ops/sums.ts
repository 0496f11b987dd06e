// Sums: the gradients of values that were added to many places.

import { sumColumns, sumPixels } from '../../kernels/norm/sums.ts';
import { elements, type NoAttributes, type Op } from './op.ts';
import { upsampleOp } from './resample.ts';

/** y[c, n] = Σ over pixels of x[c, n, p]: [c, n, h, w] to [c, n, 1, 1]. */
export const sumPixelsOp: Op<NoAttributes> = {
  infer: ({ x }) => [x![0], x![1], 1, 1],
  flop: ({ inputs: { x } }) => elements(x!),
  forward: (capabilities, { inputs }) => sumPixels(capabilities, { x: inputs.x! }),
  backward: ({ inputs: { x }, dy, apply }) => ({
    x: apply(upsampleOp, { size: [x!.shape[2], x!.shape[3]] }, { x: dy }),
  }),
};

/** y[c] = Σ over samples and pixels of x[c, n, p]: [c, n, h, w] to [c, 1, 1, 1]. */
export const sumColumnsOp: Op<NoAttributes> = {
  infer: ({ x }) => [x![0], 1, 1, 1],
  flop: ({ inputs: { x } }) => elements(x!),
  forward: (capabilities, { inputs }) => sumColumns(capabilities, { x: inputs.x! }),
};
