// Rows of tables and samples of batches, by index.

import { gather } from '../../kernels/gather.ts';
import { pickSamples } from '../../kernels/picksamples.ts';
import { none, type Op } from './op.ts';

/** y[c, n] = table[index[n]][c]. */
export interface GatherAttributes {
  readonly entries: number;
  readonly channels: number;
}

export const gatherOp: Op<GatherAttributes> = {
  infer: ({ index }, { channels }) => [channels, index![1], 1, 1],
  constants: (_, { entries, channels }) => ({ table: entries * channels }),
  forward: (capabilities, { inputs }, { entries, channels }) =>
    gather(capabilities, { n: inputs.index![1], entries, channels }),
};

/** y[c, n] = x[c, index[n]]: samples repeated, or chosen from a table of them. */
export type PickSamplesAttributes = Record<never, never>;

export const pickSamplesOp: Op<PickSamplesAttributes> = {
  infer: ({ x, index }) => [x![0], index![1], x![2], x![3]],
  constants: none,
  forward: (capabilities, { inputs }) => pickSamples(capabilities, { x: inputs.x!, n: inputs.index![1] }),
};
