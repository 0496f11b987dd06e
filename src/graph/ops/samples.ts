// Ops that pick rows of tables and samples of batches by index, and sums over samples.

import { gather, gatherGradient } from '../../kernels/elementwise/gather.ts';
import { pickSamples, sumPicked, sumSamples } from '../../kernels/elementwise/pick-samples.ts';
import { check, copies, elements, type NoAttributes, type Op, shown } from './op.ts';

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
  backward: ({ attributes, inputs: { index }, dy, needs, apply }) =>
    needs('table') ? { table: apply(gatherGradientOp, attributes, { dy, index }) } : {},
};

/** y[e, 1, 1, c] = Σ dy[c, n] over the n with index[n] = e. */
export const gatherGradientOp: Op<GatherAttributes> = {
  infer({ dy, index }, { entries, channels }) {
    check(
      dy![0] === channels && dy![1] === index![1],
      () =>
        `gatherGradient: expected dy with ${channels} channels and ${index![1]} samples, got ${shown(dy)}`,
    );
    return [entries, 1, 1, channels];
  },
  flop: ({ inputs: { dy } }) => elements(dy!),
  forward: (capabilities, { inputs }, attributes) =>
    gatherGradient(capabilities, { ...attributes, n: inputs.index![1] }),
};

/** y[c, n] = x[c, index[n]]: repeats samples, or takes them from a table. */
export const pickSamplesOp: Op<NoAttributes> = {
  infer: ({ x, index }) => [x![0], index![1], x![2], x![3]],
  flop: copies,
  cheap: true,
  forward: (capabilities, { inputs }) => pickSamples(capabilities, { x: inputs.x!, n: inputs.index![1] }),
  backward: ({ inputs: { x, index }, dy, apply }) => ({
    x: apply(sumPickedOp, { samples: x!.shape[1] }, { dy, index }),
  }),
};

/** y[c, m] = Σ dy[c, n] over the n with index[n] = m. */
export const sumPickedOp: Op<{ readonly samples: number }> = {
  infer({ dy, index }, { samples }) {
    check(dy![1] === index![1], () => `sumPicked: expected dy with ${index![1]} samples, got ${shown(dy)}`);
    return [dy![0], samples, dy![2], dy![3]];
  },
  flop: ({ inputs: { dy } }) => elements(dy!),
  forward: (capabilities, { inputs }, { samples }) => sumPicked(capabilities, { dy: inputs.dy!, samples }),
  backward: ({ inputs: { index }, dy, apply }) => ({ dy: apply(pickSamplesOp, {}, { x: dy, index }) }),
};

/** y[c, 1, 1, p] = Σ over samples n of x[c, n, p]. */
export const sumSamplesOp: Op<NoAttributes> = {
  infer: ({ x }) => [x![0], 1, 1, x![2] * x![3]],
  flop: ({ inputs: { x } }) => elements(x!),
  forward: (capabilities, { inputs }) => sumSamples(capabilities, { x: inputs.x! }),
};
