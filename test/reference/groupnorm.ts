// Group norm with scale and shift, and layer norm over channels, in f64.

import type { Activation } from '../../src/kernels/elementwise/activation.ts';
import type { GroupNormOptions } from '../../src/kernels/norm/group-norm.ts';
import type { LayerNormOptions } from '../../src/kernels/norm/layer-norm.ts';
import { referenceActivation, referenceSlope } from './activation.ts';

function moments(values: readonly number[]): { mean: number; variance: number } {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  return { mean, variance: values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length };
}

export interface NormInputs {
  readonly x: ArrayLike<number>;
  readonly gamma: ArrayLike<number>;
  readonly beta: ArrayLike<number>;
  /** [n, 2c]: the scales of each sample, then its shifts. */
  readonly embedding?: ArrayLike<number>;
}

/** Returns [n, 2c]: for each sample, the factors of its channels, then the offsets. */
export function referenceGroupNormAffine(
  { x: [c, n, h, w], groups, eps }: GroupNormOptions,
  { x, gamma, beta, embedding }: NormInputs,
): Float64Array {
  const out = new Float64Array(n * 2 * c);
  const size = (c / groups) * h * w;
  for (let i = 0; i < n; i++)
    for (let g = 0; g < groups; g++) {
      const start = (i * groups + g) * size;
      const { mean, variance } = moments(Array.from({ length: size }, (_, k) => x[start + k]!));
      for (let j = (g * c) / groups; j < ((g + 1) * c) / groups; j++) {
        const a = gamma[j]! / Math.sqrt(variance + eps);
        const b = beta[j]! - mean * a;
        const scale = 1 + (embedding?.[i * 2 * c + j] ?? 0);
        out[i * 2 * c + j] = a * scale;
        out[i * 2 * c + c + j] = b * scale + (embedding?.[i * 2 * c + c + j] ?? 0);
      }
    }
  return out;
}

/** Returns act(a x + b) with a and b per sample and channel. Arrays are in [n, c, h, w] order. */
export function referenceAffine(
  [c, n, h, w]: readonly [number, number, number, number],
  x: ArrayLike<number>,
  affine: ArrayLike<number>,
  activation: Activation,
): Float64Array {
  const out = new Float64Array(n * c * h * w);
  for (let k = 0; k < out.length; k++) {
    const sample = Math.floor(k / (c * h * w));
    const channel = Math.floor(k / (h * w)) % c;
    const [a, b] = [affine[sample * 2 * c + channel]!, affine[sample * 2 * c + c + channel]!];
    out[k] = referenceActivation(activation, a * x[k]! + b);
  }
  return out;
}

/** Normalises each pixel over its channels. Arrays are in [n, c, h, w] order. */
export function referenceLayerNorm(
  { x: [c, n, h, w], eps }: LayerNormOptions,
  x: ArrayLike<number>,
  gamma: ArrayLike<number> | undefined,
  beta: ArrayLike<number> | undefined,
): Float64Array {
  const out = new Float64Array(n * c * h * w);
  for (let i = 0; i < n; i++)
    for (let p = 0; p < h * w; p++) {
      const at = (j: number) => (i * c + j) * h * w + p;
      const { mean, variance } = moments(Array.from({ length: c }, (_, j) => x[at(j)]!));
      for (let j = 0; j < c; j++)
        out[at(j)] = ((x[at(j)]! - mean) / Math.sqrt(variance + eps)) * (gamma?.[j] ?? 1) + (beta?.[j] ?? 0);
    }
  return out;
}

/** The gradients of Σ dy·y, each laid out like its operand: gamma and beta [c], embedding [n, 2c]. */
export interface NormGradients {
  readonly x: Float64Array;
  readonly gamma: Float64Array;
  readonly beta: Float64Array;
  readonly embedding: Float64Array;
}

/** Returns the gradients for y = act(groupNorm(x) (1 + scale) + shift). Arrays are in [n, c, h, w] order. */
export function referenceGroupNormGradients(
  { x: [c, n, h, w], groups, eps }: GroupNormOptions,
  activation: Activation,
  { x, gamma, beta, embedding }: NormInputs & { readonly x: ArrayLike<number> },
  dy: ArrayLike<number>,
): NormGradients {
  const made = {
    x: new Float64Array(n * c * h * w),
    gamma: new Float64Array(c),
    beta: new Float64Array(c),
    embedding: new Float64Array(n * 2 * c),
  };
  const size = (c / groups) * h * w;
  for (let i = 0; i < n; i++)
    for (let g = 0; g < groups; g++) {
      const start = (i * groups + g) * size;
      const values = Array.from({ length: size }, (_, k) => x[start + k]!);
      const { mean, variance } = moments(values);
      const rstd = 1 / Math.sqrt(variance + eps);
      const normed = values.map((v) => (v - mean) * rstd);
      // The gradient of the normalised values; the gradients of the parameters are summed on the way.
      const reaching = normed.map((xhat, k) => {
        const j = (g * c) / groups + Math.floor(k / (h * w));
        const scale = 1 + (embedding?.[i * 2 * c + j] ?? 0);
        const shift = embedding?.[i * 2 * c + c + j] ?? 0;
        const dz = dy[start + k]! * referenceSlope(activation, (xhat * gamma[j]! + beta[j]!) * scale + shift);
        made.gamma[j]! += dz * scale * xhat;
        made.beta[j]! += dz * scale;
        made.embedding[i * 2 * c + j]! += dz * (xhat * gamma[j]! + beta[j]!);
        made.embedding[i * 2 * c + c + j]! += dz;
        return dz * scale * gamma[j]!;
      });
      const plain = reaching.reduce((sum, v) => sum + v, 0) / size;
      const along = reaching.reduce((sum, v, k) => sum + v * normed[k]!, 0) / size;
      reaching.forEach((v, k) => {
        made.x[start + k] = rstd * (v - plain - normed[k]! * along);
      });
    }
  return made;
}

/**
 * Returns the gradients for y = (layerNorm(x) gamma + beta) (1 + scale) + shift. The two halves of the
 * embedding are scale and shift.
 */
export function referenceLayerNormGradients(
  { x: [c, n, h, w], eps }: LayerNormOptions,
  { x, gamma, beta, embedding }: NormInputs & { readonly x: ArrayLike<number> },
  dy: ArrayLike<number>,
): NormGradients {
  // The channels of one pixel are a sample with one group and one pixel, so group norm's gradients apply.
  const pixels = h * w;
  const columnOf = (values: ArrayLike<number>, i: number, p: number) =>
    Array.from({ length: c }, (_, j) => values[(i * c + j) * pixels + p]!);
  const made = {
    x: new Float64Array(n * c * pixels),
    gamma: new Float64Array(c),
    beta: new Float64Array(c),
    embedding: new Float64Array(n * 2 * c),
  };
  for (let i = 0; i < n; i++)
    for (let p = 0; p < pixels; p++) {
      const rows = embedding && Array.from({ length: 2 * c }, (_, j) => embedding[i * 2 * c + j]!);
      const column = referenceGroupNormGradients(
        { x: [c, 1, 1, 1], groups: 1, eps },
        'none',
        { x: columnOf(x, i, p), gamma, beta, ...(rows ? { embedding: rows } : {}) },
        columnOf(dy, i, p),
      );
      for (let j = 0; j < c; j++) {
        made.x[(i * c + j) * pixels + p] = column.x[j]!;
        made.gamma[j]! += column.gamma[j]!;
        made.beta[j]! += column.beta[j]!;
      }
      column.embedding.forEach((v, j) => {
        made.embedding[i * 2 * c + j]! += v;
      });
    }
  return made;
}
