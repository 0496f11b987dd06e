// Ops that concatenate and slice channels, or move them to pixels and back. None of them does arithmetic.

import { concat, copyChannels } from '../../kernels/elementwise/elementwise.ts';
import { depthToSpace } from '../../kernels/elementwise/pixel-resize.ts';
import { padChannels, spaceToDepth } from '../../kernels/elementwise/pixel-resize-backward.ts';
import { check, checkShape, copies, type NoAttributes, type Op, shown } from './op.ts';
import type { Value } from './value.ts';

/** Concatenates the channels of all inputs, in the order of the inputs. */
export const concatOp: Op<NoAttributes> = {
  infer(inputs) {
    const parts = Object.values(inputs);
    const [, n, h, w] = parts[0]!;
    for (const [name, part] of Object.entries(inputs)) checkShape('concat', name, [part[0], n, h, w], part);
    return [parts.reduce((sum, part) => sum + part[0], 0), n, h, w];
  },
  flop: copies,
  joinsInputs: true,
  forward: (capabilities, { inputs }) => concat(capabilities, { inputs: Object.values(inputs) }),
  backward({ inputs, dy, needs, apply }) {
    const gradients: Record<string, Value> = {};
    let from = 0;
    for (const [name, { shape }] of Object.entries(inputs)) {
      if (needs(name)) gradients[name] = apply(sliceOp, { from, count: shape[0] }, { x: dy });
      from += shape[0];
    }
    return gradients;
  },
};

/** Takes `count` channels from channel `from` on. */
export interface SliceAttributes {
  readonly from: number;
  readonly count: number;
}

export const sliceOp: Op<SliceAttributes> = {
  infer({ x }, { from, count }) {
    check(
      from >= 0 && from + count <= x![0],
      () =>
        `slice: expected x with at least ${from + count} channels (${count} from ${from} on), got ${shown(x)}`,
    );
    return [count, x![1], x![2], x![3]];
  },
  flop: copies,
  firstChannel: ({ from }) => from,
  forward: (capabilities, { inputs, output }, { from, count }) =>
    copyChannels(capabilities, { x: inputs.x!, from, y: output, channels: count }),
  backward: ({ attributes: { from }, inputs: { x }, dy, apply }) => ({
    x: apply(padChannelsOp, { from, channels: x!.shape[0] }, { x: dy }),
  }),
};

/** Places x at the channels from `from` on of a value with `channels` channels; the others are zero. */
export interface PadChannelsAttributes {
  readonly from: number;
  readonly channels: number;
}

export const padChannelsOp: Op<PadChannelsAttributes> = {
  infer({ x }, { from, channels }) {
    check(
      from >= 0 && from + x![0] <= channels,
      () =>
        `padChannels: expected x with at most ${channels - from} channels (${channels} in all, x from ${from} on), got ${shown(x)}`,
    );
    return [channels, x![1], x![2], x![3]];
  },
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
    check(
      Number.isInteger(channels),
      () => `depthToSpace: expected a multiple of ${block ** 2} channels (block ${block}), got x ${shown(x)}`,
    );
    return [channels, x![1], block * x![2], block * x![3]];
  },
  flop: copies,
  forward: (capabilities, { inputs }, { block }) => depthToSpace(capabilities, { x: inputs.x!, block }),
  backward: ({ attributes, dy, apply }) => ({ x: apply(spaceToDepthOp, attributes, { x: dy }) }),
};

/** The inverse: y[(k·b + l)·channels + c, n, i, j] = x[c, n, i·b + k, j·b + l], b = block. */
export const spaceToDepthOp: Op<DepthToSpaceAttributes> = {
  infer({ x }, { block }) {
    check(
      x![2] % block === 0 && x![3] % block === 0,
      () => `spaceToDepth: expected a height and width that are multiples of ${block}, got x ${shown(x)}`,
    );
    return [x![0] * block ** 2, x![1], x![2] / block, x![3] / block];
  },
  flop: copies,
  forward: (capabilities, { inputs }, { block }) => spaceToDepth(capabilities, { x: inputs.x!, block }),
  backward: ({ attributes, dy, apply }) => ({ x: apply(depthToSpaceOp, attributes, { x: dy }) }),
};
