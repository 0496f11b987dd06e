// Heads of a network that predicts for every class at once.

import { pickHead, pickHeadBackward } from '../../kernels/pickhead.ts';
import type { Shape } from '../../kernels/tensor.ts';
import { copies, none, type Op, perElement, text, want } from './op.ts';

/** y[c, n] = x[label[n]·channels + c, view[n]]; a label beyond the heads takes their mean. Without `view`: view n. */
export interface PickHeadAttributes {
  readonly channels: number;
}

const isIndex = ([c, , h, w]: Shape): boolean => c === 1 && h === 1 && w === 1;

export const pickHeadOp: Op<PickHeadAttributes> = {
  infer({ x, view, label }, { channels }) {
    want(
      x![0] % channels === 0,
      () => `pickHead: x ${text(x)} does not split into heads of ${channels} channels`,
    );
    want(
      isIndex(label!) && (view ? isIndex(view) && view[1] === label![1] : x![1] === label![1]),
      () => `pickHead: view is ${text(view)}, label is ${text(label)}, x is ${text(x)}`,
    );
    return [channels, label![1], x![2], x![3]];
  },
  constants: none,
  flop: copies,
  forward: (capabilities, { inputs, output, has }, { channels }) =>
    pickHead(capabilities, { x: inputs.x!, channels, n: output[1], view: has('view') }),
  backward: ({ inputs: { x, view, label }, attributes: { channels }, dy, wants, apply }) =>
    wants('x')
      ? {
          x: apply(
            pickHeadBackwardOp,
            { channels, views: x!.shape[1], heads: x!.shape[0] / channels },
            { dy, view, label },
          ),
        }
      : {},
};

/** The gradient of `pickHead`'s x out of `dy`. */
export interface PickHeadBackwardAttributes extends PickHeadAttributes {
  readonly heads: number;
  readonly views: number;
}

export const pickHeadBackwardOp: Op<PickHeadBackwardAttributes> = {
  infer({ dy }, { channels, heads, views }) {
    want(dy![0] === channels, () => `pickHeadBackward: dy is ${text(dy)}, a head has ${channels} channels`);
    return [heads * channels, views, dy![2], dy![3]];
  },
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs, output, has }, { channels }) =>
    pickHeadBackward(capabilities, { x: output, channels, n: inputs.dy![1], view: has('view') }),
};
