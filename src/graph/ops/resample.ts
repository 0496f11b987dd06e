// Resolution, up and down.

import { averagePool2x2, upsampleNearest } from '../../kernels/resample.ts';
import { none, type Op } from './op.ts';

/** Nearest, to twice the size or to the one given. */
export interface UpsampleAttributes {
  readonly size?: readonly [height: number, width: number];
}

export const upsampleOp: Op<UpsampleAttributes> = {
  infer: ({ x }, { size }) => [x![0], x![1], ...(size ?? ([2 * x![2], 2 * x![3]] as const))],
  constants: none,
  forward: (capabilities, { inputs, output }) =>
    upsampleNearest(capabilities, { x: inputs.x!, size: [output[2], output[3]] }),
};

export type AveragePoolAttributes = Record<never, never>;

export const averagePoolOp: Op<AveragePoolAttributes> = {
  infer: ({ x }) => [x![0], x![1], Math.floor(x![2] / 2), Math.floor(x![3] / 2)],
  constants: none,
  forward: (capabilities, { inputs }) => averagePool2x2(capabilities, { x: inputs.x! }),
};
