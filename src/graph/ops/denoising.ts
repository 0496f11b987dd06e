// The two ends of an evaluation: the noised image, and the distance of noise and prediction.

import {
  type Distance,
  errorReduction,
  errorsGradient,
  type Residual,
} from '../../kernels/error-reduction.ts';
import { mix, type NoiseSource, scaleByLevel, slotsGradient } from '../../kernels/mix.ts';
import type { Shape } from '../../kernels/tensor.ts';
import { elements, none, type Op, perElement, same, text, want } from './op.ts';

/** x_t = a·x0 + b·eps, sample by sample from slots, levels and noise indices. */
export interface MixAttributes {
  readonly noise: NoiseSource;
  readonly image: readonly [c: number, h: number, w: number];
}

export const mixOp: Op<MixAttributes> = {
  infer({ slot, noise }, { image: [c, h, w] }) {
    noiseFits('mix', slot![1], noise!);
    return [c, slot![1], h, w];
  },
  constants: none,
  flop: perElement,
  forward: (capabilities, { output }, { noise }) => mix(capabilities, { y: output, noise }),
  backward: ({ inputs: { slots, slot, level }, constants: { levels }, dy, wants, apply }) =>
    wants('slots')
      ? { slots: apply(slotsGradientOp, { slots: slots!.shape[1] }, { dy, slot, level }, { levels }) }
      : {},
};

/** y[1, s, 1, c·h·w] = Σ a·dy[c, n, h, w] over the samples of slot s: the gradient of images in slots. */
export interface SlotsGradientAttributes {
  readonly slots: number;
}

export const slotsGradientOp: Op<SlotsGradientAttributes> = {
  infer: ({ dy }, { slots }) => [1, slots, 1, dy![0] * dy![2] * dy![3]],
  constants: none,
  flop: ({ inputs: { dy } }) => elements(dy!),
  forward: (capabilities, { inputs }, { slots }) => slotsGradient(capabilities, { dy: inputs.dy!, slots }),
};

/** y = a·x with a of each sample's level: from gradients of x_t to those of the samples' images. */
export type ScaleByLevelAttributes = Record<never, never>;

export const scaleByLevelOp: Op<ScaleByLevelAttributes> = {
  infer: ({ x }) => x!,
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs }) => scaleByLevel(capabilities, { x: inputs.x! }),
  backward: ({ inputs: { level }, constants, dy, apply }) => ({
    x: apply(scaleByLevelOp, {}, { x: dy, level }, constants),
  }),
};

/** The distance of eps and alpha·prediction + beta·x_t, or of the images these stand for; one number a sample. */
export interface ErrorsAttributes {
  readonly noise: NoiseSource;
  readonly distance: Distance;
  readonly residual?: Residual | undefined;
  readonly channels: number;
}

export const errorsOp: Op<ErrorsAttributes> = {
  infer({ prediction, xt, noise }, { channels }) {
    residualFits('errors', prediction!, xt!, channels);
    noiseFits('errors', xt![1], noise!);
    return [1, xt![1], 1, 1];
  },
  constants: none,
  flop: ({ inputs: { xt } }) => elements(xt!),
  forward: (capabilities, { inputs: { prediction, xt } }, { noise, distance, residual }) =>
    errorReduction(capabilities, { prediction: prediction!, xt: xt!, noise, distance, residual }),
  backward({ attributes, inputs, constants, dy, wants, apply }) {
    const gradient = (of: 'prediction' | 'xt') =>
      wants(of) ? { [of]: apply(errorsGradientOp, { ...attributes, of }, { ...inputs, dy }, constants) } : {};
    return { ...gradient('prediction'), ...gradient('xt') };
  },
};

/** The gradient of the errors with regard to the prediction, or to x_t where it stands beside it. */
export interface ErrorsGradientAttributes extends ErrorsAttributes {
  readonly of: 'prediction' | 'xt';
}

export const errorsGradientOp: Op<ErrorsGradientAttributes> = {
  infer({ prediction, xt, dy }, { channels, of }) {
    residualFits('errorsGradient', prediction!, xt!, channels);
    want(same([1, xt![1], 1, 1], dy!), () => `errorsGradient: dy is ${text(dy)}, x_t ${text(xt)}`);
    return of === 'xt' ? xt! : prediction!;
  },
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs: { prediction, xt } }, { noise, distance, residual, of }) =>
    errorsGradient(capabilities, { prediction: prediction!, xt: xt!, noise, distance, residual, of }),
};

/** Noise comes as rows of `noiseKeys`. */
function noiseFits(op: string, n: number, noise: Shape): void {
  want(same([1, n, 1, 4], noise), () => `${op}: expected noise [1, ${n}, 1, 4], got ${text(noise)}`);
}

function residualFits(op: string, prediction: Shape, xt: Shape, channels: number): void {
  want(
    xt[0] === channels && prediction[0] >= channels && same([channels, ...tail(prediction)], xt),
    () => `${op}: the prediction is ${text(prediction)}, x_t is ${text(xt)}`,
  );
}

const tail = ([, n, h, w]: Shape): [number, number, number] => [n, h, w];
