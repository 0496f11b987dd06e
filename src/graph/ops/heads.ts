// The heads of a multi-head network, which predicts for every class in one run.

import type { Shape } from '../../kernels/device/tensor.ts';
import { pickHead, pickHeadBackward } from '../../kernels/elementwise/pick-head.ts';
import { check, copies, type Op, perElement, shown } from './op.ts';

/**
 * y[c, n] = x[label[n]·channels + c, view[n]]. A label beyond the last head takes the mean of all heads. Without the
 * input `view`, sample n reads view n.
 */
export interface PickHeadAttributes {
  readonly channels: number;
}

const isIndex = ([c, , h, w]: Shape): boolean => c === 1 && h === 1 && w === 1;

export const pickHeadOp: Op<PickHeadAttributes> = {
  infer({ x, view, label }, { channels }) {
    check(
      x![0] % channels === 0,
      () => `pickHead: expected a multiple of ${channels} channels, ${channels} per head, got x ${shown(x)}`,
    );
    check(
      isIndex(label!) && (view ? isIndex(view) && view[1] === label![1] : x![1] === label![1]),
      () =>
        `pickHead: expected one label per ${view ? 'view index' : 'sample of x'}, got label ${shown(label)}, view ${shown(view)}, x ${shown(x)}`,
    );
    return [channels, label![1], x![2], x![3]];
  },
  flop: copies,
  forward: (capabilities, { inputs, output, has }, { channels }) =>
    pickHead(capabilities, { x: inputs.x!, channels, n: output[1], view: has('view') }),
  backward({ inputs: { x, view, label }, attributes: { channels }, dy, needs, apply }) {
    if (!needs('x')) return {};
    const attributes = { channels, views: x!.shape[1], heads: x!.shape[0] / channels };
    return { x: apply(pickHeadBackwardOp, attributes, { dy, view, label }) };
  },
};

/** The gradient of `pickHead` with respect to x. */
export interface PickHeadBackwardAttributes extends PickHeadAttributes {
  readonly heads: number;
  readonly views: number;
}

export const pickHeadBackwardOp: Op<PickHeadBackwardAttributes> = {
  infer({ dy }, { channels, heads, views }) {
    check(
      dy![0] === channels,
      () => `pickHeadBackward: expected dy with ${channels} channels, got ${shown(dy)}`,
    );
    return [heads * channels, views, dy![2], dy![3]];
  },
  flop: perElement,
  forward: (capabilities, { inputs, output, has }, { channels }) =>
    pickHeadBackward(capabilities, { x: output, channels, n: inputs.dy![1], view: has('view') }),
};
