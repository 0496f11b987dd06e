// Channels put together, taken apart, or turned into pixels.

import { concat, copyChannels } from '../../kernels/elementwise.ts';
import { depthToSpace } from '../../kernels/resample.ts';
import { none, type Op, same, text, want } from './op.ts';

/** Channels of all inputs, in their order. */
export type ConcatAttributes = Record<never, never>;

export const concatOp: Op<ConcatAttributes> = {
  infer(inputs) {
    const parts = Object.values(inputs);
    const [, n, h, w] = parts[0]!;
    for (const part of parts)
      want(
        same([part[0], n, h, w], part),
        () => `concat: ${text(parts[0])} and ${text(part)} differ in more than channels`,
      );
    return [parts.reduce((sum, part) => sum + part[0], 0), n, h, w];
  },
  constants: none,
  forward: (capabilities, { inputs }) => concat(capabilities, { inputs: Object.values(inputs) }),
};

/** `count` channels from `from` on. */
export interface SliceAttributes {
  readonly from: number;
  readonly count: number;
}

export const sliceOp: Op<SliceAttributes> = {
  infer({ x }, { from, count }) {
    want(
      from >= 0 && from + count <= x![0],
      () => `slice: channels ${from} to ${from + count} of x ${text(x)}`,
    );
    return [count, x![1], x![2], x![3]];
  },
  constants: none,
  forward: (capabilities, { inputs, output }, { from, count }) =>
    copyChannels(capabilities, { x: inputs.x!, from, y: output, channels: count }),
};

/** y[c, n, i·b + k, j·b + l] = x[(k·b + l)·channels + c, n, i, j], b = block. */
export interface DepthToSpaceAttributes {
  readonly block: number;
}

export const depthToSpaceOp: Op<DepthToSpaceAttributes> = {
  infer({ x }, { block }) {
    const channels = x![0] / block ** 2;
    want(
      Number.isInteger(channels),
      () => `depthToSpace: x ${text(x)} has no whole blocks of ${block}x${block}`,
    );
    return [channels, x![1], block * x![2], block * x![3]];
  },
  constants: none,
  forward: (capabilities, { inputs }, { block }) => depthToSpace(capabilities, { x: inputs.x!, block }),
};
