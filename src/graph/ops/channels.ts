// Channels put together, taken apart, or turned into pixels.

import { concat, copyChannels } from '../../kernels/elementwise.ts';
import { depthToSpace } from '../../kernels/resample.ts';
import { padChannels, spaceToDepth } from '../../kernels/resample-backward.ts';
import type { Value } from '../value.ts';
import { copies, none, type Op, same, text, want } from './op.ts';

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
  flop: copies,
  forward: (capabilities, { inputs }) => concat(capabilities, { inputs: Object.values(inputs) }),
  backward({ inputs, dy, wants, apply }) {
    const gradients: Record<string, Value> = {};
    let from = 0;
    for (const [name, { shape }] of Object.entries(inputs)) {
      if (wants(name)) gradients[name] = apply(sliceOp, { from, count: shape[0] }, { x: dy });
      from += shape[0];
    }
    return gradients;
  },
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
  flop: copies,
  forward: (capabilities, { inputs, output }, { from, count }) =>
    copyChannels(capabilities, { x: inputs.x!, from, y: output, channels: count }),
  backward: ({ attributes: { from }, inputs: { x }, dy, apply }) => ({
    x: apply(padChannelsOp, { from, channels: x!.shape[0] }, { x: dy }),
  }),
};

/** x as the channels from `from` on of `channels`, zeros in the others. */
export interface PadChannelsAttributes {
  readonly from: number;
  readonly channels: number;
}

export const padChannelsOp: Op<PadChannelsAttributes> = {
  infer({ x }, { from, channels }) {
    want(
      from >= 0 && from + x![0] <= channels,
      () => `padChannels: x ${text(x)} at channel ${from} of ${channels}`,
    );
    return [channels, x![1], x![2], x![3]];
  },
  constants: none,
  flop: copies,
  forward: (capabilities, { inputs }, { from, channels }) =>
    padChannels(capabilities, { x: inputs.x!, first: from, channels }),
  backward: ({ attributes: { from }, inputs: { x }, dy, apply }) => ({
    x: apply(sliceOp, { from, count: x!.shape[0] }, { x: dy }),
  }),
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
  flop: copies,
  forward: (capabilities, { inputs }, { block }) => depthToSpace(capabilities, { x: inputs.x!, block }),
  backward: ({ attributes, dy, apply }) => ({ x: apply(spaceToDepthOp, attributes, { x: dy }) }),
};

/** The inverse: y[(k·b + l)·channels + c, n, i, j] = x[c, n, i·b + k, j·b + l], b = block. */
export const spaceToDepthOp: Op<DepthToSpaceAttributes> = {
  infer({ x }, { block }) {
    want(
      x![2] % block === 0 && x![3] % block === 0,
      () => `spaceToDepth: x ${text(x)} has no whole blocks of ${block}x${block}`,
    );
    return [x![0] * block ** 2, x![1], x![2] / block, x![3] / block];
  },
  constants: none,
  flop: copies,
  forward: (capabilities, { inputs }, { block }) => spaceToDepth(capabilities, { x: inputs.x!, block }),
  backward: ({ attributes, dy, apply }) => ({ x: apply(depthToSpaceOp, attributes, { x: dy }) }),
};
