// The ops of the optimal denoiser, which weighs the training images by their posterior given a noised image.

import { posterior, posteriorGradient } from '../../kernels/diffusion/dataset-posterior.ts';
import { flatten, unflatten } from '../../kernels/elementwise/flatten.ts';
import { check, checkShape, copies, type NoAttributes, type Op, perElement, shown } from './op.ts';

/** y[c·h·w + p, n] = x[c, n, p]. */
export const flattenOp: Op<NoAttributes> = {
  infer: ({ x }) => [x![0] * x![2] * x![3], x![1], 1, 1],
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
    check(
      Number.isInteger(channels) && x![2] * x![3] === 1,
      () => `unflatten: expected [c·${height}·${width}, n, 1, 1], got x ${shown(x)}`,
    );
    return [channels, x![1], height, width];
  },
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
    check(
      x![2] * x![3] === 1 && level![1] === x![1],
      () =>
        `posterior: expected x [images, n, 1, 1] and one level per sample, got x ${shown(x)}, level ${shown(level)}`,
    );
    return x!;
  },
  constants: ({ x }, { levels }) => ({ half: x![0], scales: levels }),
  flop: perElement,
  forward: (capabilities, { inputs }, { levels }) => posterior(capabilities, { x: inputs.x!, levels }),
  backward: ({ attributes, inputs: { level }, constants: { scales }, output, dy, needs, apply }) =>
    needs('x') ? { x: apply(posteriorGradientOp, attributes, { p: output, dy, level }, { scales }) } : {},
};

/** The gradient of `posterior` with respect to x, from its output p. */
export const posteriorGradientOp: Op<PosteriorAttributes> = {
  infer({ p, dy }) {
    checkShape('posteriorGradient', 'dy', p!, dy);
    return p!;
  },
  constants: (_, { levels }) => ({ scales: levels }),
  flop: perElement,
  forward: (capabilities, { inputs }, { levels }) =>
    posteriorGradient(capabilities, { x: inputs.p!, levels }),
};
