// The two ends of an evaluation: the noised image, and the distance of noise and prediction.

import { type Distance, errorReduction, type Residual } from '../../kernels/error-reduction.ts';
import { mix, type NoiseSource } from '../../kernels/mix.ts';
import type { Shape } from '../../kernels/tensor.ts';
import { none, type Op, same, text, want } from './op.ts';

/** x_t = a·x0 + b·eps, sample by sample from slots, levels and noise indices. */
export interface MixAttributes {
  readonly noise: NoiseSource;
  readonly image: readonly [c: number, h: number, w: number];
}

export const mixOp: Op<MixAttributes> = {
  infer: ({ slot }, { image: [c, h, w] }) => [c, slot![1], h, w],
  constants: none,
  forward: (capabilities, { output }, { noise }) => mix(capabilities, { y: output, noise }),
};

/** The distance of eps and alpha·prediction + beta·x_t, or of the images these stand for; one number a sample. */
export interface ErrorsAttributes {
  readonly noise: NoiseSource;
  readonly distance: Distance;
  readonly residual?: Residual | undefined;
  readonly channels: number;
}

export const errorsOp: Op<ErrorsAttributes> = {
  infer({ prediction, xt }, { channels }) {
    want(
      xt![0] === channels && prediction![0] >= channels && same([channels, ...tail(prediction!)], xt!),
      () => `errors: the prediction is ${text(prediction)}, x_t is ${text(xt)}`,
    );
    return [1, xt![1], 1, 1];
  },
  constants: none,
  forward: (capabilities, { inputs: { prediction, xt } }, { noise, distance, residual }) =>
    errorReduction(capabilities, { prediction: prediction!, xt: xt!, noise, distance, residual }),
};

const tail = ([, n, h, w]: Shape): [number, number, number] => [n, h, w];
