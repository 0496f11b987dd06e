// What a denoiser made of images themselves needs: whole images as columns, and which of them a noised one is made of.

import { flatten, unflatten } from '../../kernels/flatten.ts';
import { posterior, posteriorGradient } from '../../kernels/posterior.ts';
import { copies, none, type Op, perElement, same, text, want } from './op.ts';

/** y[c·h·w + p, n] = x[c, n, p]. */
export type FlattenAttributes = Record<never, never>;

export const flattenOp: Op<FlattenAttributes> = {
  infer: ({ x }) => [x![0] * x![2] * x![3], x![1], 1, 1],
  constants: none,
  flop: copies,
  forward: (capabilities, { inputs }) => flatten(capabilities, { x: inputs.x! }),
  backward: ({ inputs: { x }, dy, apply }) => ({
    x: apply(unflattenOp, { height: x!.shape[2], width: x!.shape[3] }, { x: dy }),
  }),
};

/** y[c, n, p] = x[c·h·w + p, n]. */
export interface UnflattenAttributes {
  readonly height: number;
  readonly width: number;
}

export const unflattenOp: Op<UnflattenAttributes> = {
  infer({ x }, { height, width }) {
    const channels = x![0] / (height * width);
    want(
      Number.isInteger(channels) && x![2] * x![3] === 1,
      () => `unflatten: x ${text(x)} has no whole channels of ${height}x${width}`,
    );
    return [channels, x![1], height, width];
  },
  constants: none,
  flop: copies,
  forward: (capabilities, { output }) => unflatten(capabilities, { y: output }),
  backward: ({ dy, apply }) => ({ x: apply(flattenOp, {}, { x: dy }) }),
};

/** y[i, n] = softmax over rows i of scales[level[n]]·(x[i, n] - half[i]). */
export interface PosteriorAttributes {
  readonly levels: number;
}

export const posteriorOp: Op<PosteriorAttributes> = {
  infer({ x, level }) {
    want(
      x![2] * x![3] === 1 && level![1] === x![1],
      () => `posterior: x is ${text(x)}, level is ${text(level)}`,
    );
    return x!;
  },
  constants: ({ x }, { levels }) => ({ half: x![0], scales: levels }),
  flop: perElement,
  forward: (capabilities, { inputs }, { levels }) => posterior(capabilities, { x: inputs.x!, levels }),
  backward: ({ attributes, inputs: { level }, constants: { scales }, output, dy, wants, apply }) =>
    wants('x') ? { x: apply(posteriorGradientOp, attributes, { p: output, dy, level }, { scales }) } : {},
};

export const posteriorGradientOp: Op<PosteriorAttributes> = {
  infer({ p, dy }) {
    want(same(p!, dy!), () => `posteriorGradient: p is ${text(p)}, dy is ${text(dy)}`);
    return p!;
  },
  constants: (_, { levels }) => ({ scales: levels }),
  flop: perElement,
  forward: (capabilities, { inputs }, { levels }) =>
    posteriorGradient(capabilities, { x: inputs.p!, levels }),
};
