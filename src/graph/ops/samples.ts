// Rows of tables and samples of batches, by index.

import { gather, gatherGradient } from '../../kernels/gather.ts';
import { pickSamples, sumPicked, sumSamples } from '../../kernels/picksamples.ts';
import { copies, elements, none, type Op, text, want } from './op.ts';

/** y[c, n] = table[index[n]][c]. */
export interface GatherAttributes {
  readonly entries: number;
  readonly channels: number;
}

export const gatherOp: Op<GatherAttributes> = {
  infer: ({ index }, { channels }) => [channels, index![1], 1, 1],
  constants: (_, { entries, channels }) => ({ table: entries * channels }),
  flop: copies,
  cheap: true,
  forward: (capabilities, { inputs }, { entries, channels }) =>
    gather(capabilities, { n: inputs.index![1], entries, channels }),
  backward: ({ attributes, inputs: { index }, dy, wants, apply }) =>
    wants('table') ? { table: apply(gatherGradientOp, attributes, { dy, index }) } : {},
};

/** y[e, 1, 1, c] = Σ of dy[c, n] over the n with index[n] = e. */
export const gatherGradientOp: Op<GatherAttributes> = {
  infer({ dy, index }, { entries, channels }) {
    want(
      dy![0] === channels && dy![1] === index![1],
      () => `gatherGradient: dy is ${text(dy)}, the indices ${text(index)}, the channels ${channels}`,
    );
    return [entries, 1, 1, channels];
  },
  constants: none,
  flop: ({ inputs: { dy } }) => elements(dy!),
  forward: (capabilities, { inputs }, attributes) =>
    gatherGradient(capabilities, { ...attributes, n: inputs.index![1] }),
};

/** y[c, n] = x[c, index[n]]: samples repeated, or chosen from a table of them. */
export type PickSamplesAttributes = Record<never, never>;

export const pickSamplesOp: Op<PickSamplesAttributes> = {
  infer: ({ x, index }) => [x![0], index![1], x![2], x![3]],
  constants: none,
  flop: copies,
  cheap: true,
  forward: (capabilities, { inputs }) => pickSamples(capabilities, { x: inputs.x!, n: inputs.index![1] }),
  backward: ({ inputs: { x, index }, dy, apply }) => ({
    x: apply(sumPickedOp, { samples: x!.shape[1] }, { dy, index }),
  }),
};

/** y[c, m] = Σ of dy[c, n] over the n with index[n] = m. */
export interface SumPickedAttributes {
  readonly samples: number;
}

export const sumPickedOp: Op<SumPickedAttributes> = {
  infer({ dy, index }, { samples }) {
    want(dy![1] === index![1], () => `sumPicked: dy is ${text(dy)}, the indices ${text(index)}`);
    return [dy![0], samples, dy![2], dy![3]];
  },
  constants: none,
  flop: ({ inputs: { dy } }) => elements(dy!),
  forward: (capabilities, { inputs }, { samples }) => sumPicked(capabilities, { dy: inputs.dy!, samples }),
  backward: ({ inputs: { index }, dy, apply }) => ({ dy: apply(pickSamplesOp, {}, { x: dy, index }) }),
};

/** y[c, 1, 1, p] = Σ over samples of x[c, n, p]. */
export type SumSamplesAttributes = Record<never, never>;

export const sumSamplesOp: Op<SumSamplesAttributes> = {
  infer: ({ x }) => [x![0], 1, 1, x![2] * x![3]],
  constants: none,
  flop: ({ inputs: { x } }) => elements(x!),
  forward: (capabilities, { inputs }) => sumSamples(capabilities, { x: inputs.x! }),
};
