// The two ends of an evaluation: mixing the noised image x_t, and reducing the prediction to one error per sample.

import type { Shape } from '../../kernels/device/tensor.ts';
import {
  type Distance,
  errorReduction,
  errorsGradient,
  type Residual,
} from '../../kernels/diffusion/error-reduction.ts';
import { mix, type NoiseSource, scaleByLevel, slotsGradient } from '../../kernels/diffusion/mix.ts';
import { check, checkShape, elements, type NoAttributes, type Op, perElement, shown } from './op.ts';

/** x_t = a·x0 + b·eps for each sample. x0 is in a slot; a and b belong to the level; eps is given by the noise key. */
export interface MixAttributes {
  readonly noise: NoiseSource;
  readonly image: readonly [c: number, h: number, w: number];
}

export const mixOp: Op<MixAttributes> = {
  infer({ slot, noise }, { image: [c, h, w] }) {
    noiseFits('mix', slot![1], noise!);
    return [c, slot![1], h, w];
  },
  flop: perElement,
  forward: (capabilities, { output }, { noise }) => mix(capabilities, { y: output, noise }),
  backward: ({ inputs: { slots, slot, level }, constants: { levels }, dy, needs, apply }) =>
    needs('slots')
      ? { slots: apply(slotsGradientOp, { slots: slots!.shape[1] }, { dy, slot, level }, { levels }) }
      : {},
};

/** y[1, s, 1, c·h·w] = Σ a·dy[c, n, h, w] over the samples n of slot s: the gradient of the images in slots. */
export const slotsGradientOp: Op<{ readonly slots: number }> = {
  infer: ({ dy }, { slots }) => [1, slots, 1, dy![0] * dy![2] * dy![3]],
  flop: ({ inputs: { dy } }) => elements(dy!),
  forward: (capabilities, { inputs }, { slots }) => slotsGradient(capabilities, { dy: inputs.dy!, slots }),
};

/** y = a·x, with a of each sample's level: turns the gradient of x_t into that of x0, per sample. */
export const scaleByLevelOp: Op<NoAttributes> = {
  infer: ({ x }) => x!,
  flop: perElement,
  forward: (capabilities, { inputs }) => scaleByLevel(capabilities, { x: inputs.x! }),
  backward: ({ inputs: { level }, constants, dy, apply }) => ({
    x: apply(scaleByLevelOp, {}, { x: dy, level }, constants),
  }),
};

/**
 * The distance between eps and alpha·prediction + beta·x_t, or between the images that these imply (`residual`): one
 * number per sample.
 */
export interface ErrorsAttributes {
  readonly noise: NoiseSource;
  readonly distance: Distance;
  readonly residual?: Residual | undefined;
  readonly channels: number;
}

export const errorsOp: Op<ErrorsAttributes> = {
  // Errors of two candidates differ by about 1e-4 of themselves.
  exact: ['prediction', 'xt'],
  infer({ prediction, xt, noise }, { channels }) {
    predictionFits('errors', prediction!, xt!, channels);
    noiseFits('errors', xt![1], noise!);
    return [1, xt![1], 1, 1];
  },
  flop: ({ inputs: { xt } }) => elements(xt!),
  forward: (capabilities, { inputs: { prediction, xt } }, { noise, distance, residual }) =>
    errorReduction(capabilities, { prediction: prediction!, xt: xt!, noise, distance, residual }),
  backward({ attributes, inputs, constants, dy, needs, apply }) {
    const gradient = (of: 'prediction' | 'xt') =>
      needs(of) ? { [of]: apply(errorsGradientOp, { ...attributes, of }, { ...inputs, dy }, constants) } : {};
    return { ...gradient('prediction'), ...gradient('xt') };
  },
};

/** The gradient of the errors with respect to the prediction, or to x_t as a direct operand of the error. */
export interface ErrorsGradientAttributes extends ErrorsAttributes {
  readonly of: 'prediction' | 'xt';
}

export const errorsGradientOp: Op<ErrorsGradientAttributes> = {
  infer({ prediction, xt, dy }, { channels, of }) {
    predictionFits('errorsGradient', prediction!, xt!, channels);
    checkShape('errorsGradient', 'dy', [1, xt![1], 1, 1], dy);
    return of === 'xt' ? xt! : prediction!;
  },
  flop: perElement,
  forward: (capabilities, { inputs: { prediction, xt } }, { noise, distance, residual, of }) =>
    errorsGradient(capabilities, { prediction: prediction!, xt: xt!, noise, distance, residual, of }),
};

/** Noise is given as one row of `noiseKeys` per sample. */
function noiseFits(op: string, n: number, noise: Shape): void {
  checkShape(op, 'noise', [1, n, 1, 4], noise);
}

function predictionFits(op: string, prediction: Shape, xt: Shape, channels: number): void {
  const [c, n, h, w] = prediction;
  checkShape(op, 'xt', [channels, n, h, w], xt);
  check(
    c >= channels,
    () => `${op}: expected a prediction with at least ${channels} channels, got ${shown(prediction)}`,
  );
}
