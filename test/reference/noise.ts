// The forward process of diffusion and the errors of a prediction, one element at a time, in f64.

import type { Shape } from '../../src/kernels/device/tensor.ts';
import type { Distance, Residual } from '../../src/kernels/diffusion/error-reduction.ts';
import { at, build } from './elementwise.ts';

export interface BatchIndices {
  readonly slot: ArrayLike<number>;
  readonly level: ArrayLike<number>;
  readonly noise: ArrayLike<number>;
}

/**
 * Returns element `element` of noise `noise` for sample `sample`: either the device's own f32 value or the
 * exact one.
 */
export type NoiseFunction = (noise: number, element: number, sample: number) => number;

/** Returns x_t [n, c, h, w] = a x0[slot] + b eps; `levels` holds rows of (a, b, alpha, beta). */
export function referenceMix(
  shape: Shape,
  slots: ArrayLike<number>,
  levels: ArrayLike<number>,
  { slot, level, noise }: BatchIndices,
  eps: NoiseFunction,
): Float64Array {
  const [c, , h, w] = shape;
  return build(shape, (i, j, row, column) => {
    const element = (j * h + row) * w + column;
    const [a, b] = [levels[4 * level[i]!]!, levels[4 * level[i]! + 1]!];
    return a * slots[slot[i]! * c * h * w + element]! + b * eps(noise[i]!, element, i);
  });
}

type Row = [a: number, b: number, alpha: number, beta: number];

const DISTANCES: Readonly<Record<Distance, (d: number) => number>> = {
  l2: (d) => d * d,
  l1: Math.abs,
  huber: (d) => (Math.abs(d) < 1 ? 0.5 * d * d : Math.abs(d) - 0.5),
};

/**
 * Returns [n]: the mean distance between eps and alpha prediction + beta xt. For the residual 'x0', the
 * difference is multiplied by b / a, which makes it a difference of images.
 */
export function referenceErrors(
  distance: Distance,
  prediction: { readonly shape: Shape; readonly values: ArrayLike<number> },
  xt: { readonly shape: Shape; readonly values: ArrayLike<number> },
  levels: ArrayLike<number>,
  { level, noise }: BatchIndices,
  eps: NoiseFunction,
  residual: Residual = 'eps',
): Float64Array {
  const [c, n, h, w] = xt.shape;
  const out = new Float64Array(n);
  build(xt.shape, (i, j, row, column) => {
    const [a, b, alpha, beta] = Array.from({ length: 4 }, (_, k) => levels[4 * level[i]! + k]!) as Row;
    const scale = residual === 'x0' ? b / a : 1;
    const estimate =
      alpha * at(prediction.values, prediction.shape, i, j, row, column) +
      beta * at(xt.values, xt.shape, i, j, row, column);
    const d = DISTANCES[distance](scale * (eps(noise[i]!, (j * h + row) * w + column, i) - estimate));
    out[i]! += d / (c * h * w);
    return d;
  });
  return out;
}

const SLOPES: Readonly<Record<Distance, (d: number) => number>> = {
  l2: (d) => 2 * d,
  l1: Math.sign,
  huber: (d) => Math.max(-1, Math.min(1, d)),
};

/** Returns the gradients of Σ dy·errors with respect to the prediction and to x_t; dy [n]. */
export function referenceErrorsGradients(
  distance: Distance,
  prediction: { readonly shape: Shape; readonly values: ArrayLike<number> },
  xt: { readonly shape: Shape; readonly values: ArrayLike<number> },
  levels: ArrayLike<number>,
  { level, noise }: BatchIndices,
  eps: NoiseFunction,
  dy: ArrayLike<number>,
  residual: Residual = 'eps',
): { readonly prediction: Float64Array; readonly xt: Float64Array } {
  const [c, , h, w] = xt.shape;
  const along = (shape: Shape, of: 2 | 3) =>
    build(shape, (i, j, row, column) => {
      if (j >= c) return 0;
      const [a, b, alpha, beta] = Array.from({ length: 4 }, (_, k) => levels[4 * level[i]! + k]!) as Row;
      const scale = residual === 'x0' ? b / a : 1;
      const estimate =
        alpha * at(prediction.values, prediction.shape, i, j, row, column) +
        beta * at(xt.values, xt.shape, i, j, row, column);
      const d = scale * (eps(noise[i]!, (j * h + row) * w + column, i) - estimate);
      return (-dy[i]! * scale * (of === 2 ? alpha : beta) * SLOPES[distance](d)) / (c * h * w);
    });
  return { prediction: along(prediction.shape, 2), xt: along(xt.shape, 3) };
}
