// A slow, obvious implementation of a dense layer. Every sum is in f64; arrays are in the usual [n, c, h, w]
// order.

import type { Activation } from '../../src/kernels/elementwise/activation.ts';
import type { LinearOptions } from '../../src/kernels/gemm/linear.ts';

const activations: Partial<Record<Activation, (v: number) => number>> = {
  none: (v) => v,
  silu: (v) => v / (1 + Math.exp(-v)),
  'quick-gelu': (v) => v / (1 + Math.exp(-1.702 * v)),
  relu: (v) => Math.max(v, 0),
};

export interface LinearInputs {
  /** x [n, in, h, w]. */
  readonly x: ArrayLike<number>;
  /** weight [out, in]. */
  readonly weight: ArrayLike<number>;
  /** bias [out]. */
  readonly bias?: ArrayLike<number>;
  /** residual [n, out, h, w]. */
  readonly residual?: ArrayLike<number>;
}

/** Returns y [n, out, h, w]. */
export function referenceLinear(
  { x: [inputs, n, h, w], outChannels, activation = 'none', scale = 1 }: LinearOptions,
  { x, weight, bias, residual }: LinearInputs,
): Float64Array {
  const act = activations[activation]!;
  const pixels = h * w;
  const y = new Float64Array(n * outChannels * pixels);
  for (let s = 0; s < n; s++)
    for (let o = 0; o < outChannels; o++)
      for (let p = 0; p < pixels; p++) {
        let sum = bias?.[o] ?? 0;
        for (let i = 0; i < inputs; i++) sum += weight[o * inputs + i]! * x[(s * inputs + i) * pixels + p]!;
        const at = (s * outChannels + o) * pixels + p;
        y[at] = scale * (act(sum) + (residual?.[at] ?? 0));
      }
  return y;
}

const EPS = 1e-6;

/**
 * Returns the gradients of Σ dy · y, each laid out like its operand. The slope of the activation is a central
 * difference.
 */
export function referenceLinearBackward(
  { x: [inputs, n, h, w], outChannels, activation = 'none', scale = 1 }: LinearOptions,
  { x, weight, bias }: LinearInputs,
  dy: ArrayLike<number>,
): Record<'x' | 'weight' | 'bias' | 'residual', Float64Array> {
  const act = activations[activation]!;
  const pixels = h * w;
  const gradients = {
    x: new Float64Array(n * inputs * pixels),
    weight: new Float64Array(outChannels * inputs),
    bias: new Float64Array(outChannels),
    residual: Float64Array.from(dy, (d) => scale * d),
  };
  for (let s = 0; s < n; s++)
    for (let o = 0; o < outChannels; o++)
      for (let p = 0; p < pixels; p++) {
        let sum = bias?.[o] ?? 0;
        for (let i = 0; i < inputs; i++) sum += weight[o * inputs + i]! * x[(s * inputs + i) * pixels + p]!;
        const slope = (act(sum + EPS) - act(sum - EPS)) / (2 * EPS);
        const d = scale * slope * dy[(s * outChannels + o) * pixels + p]!;
        gradients.bias[o]! += d;
        for (let i = 0; i < inputs; i++) {
          gradients.x[(s * inputs + i) * pixels + p]! += d * weight[o * inputs + i]!;
          gradients.weight[o * inputs + i]! += d * x[(s * inputs + i) * pixels + p]!;
        }
      }
  return gradients;
}
