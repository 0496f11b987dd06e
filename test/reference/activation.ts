// The activations as written in the papers, in f64.

import type { Activation } from '../../src/kernels/elementwise/activation.ts';

/**
 * Computes erf by its Maclaurin series, in the form with exp(-x²), whose terms are all positive. Beyond 6 it
 * is 1 in f64.
 */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let k = 1; k < 200; k++) {
    term *= (2 * x * x) / (2 * k + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

const sigmoid = (v: number): number => 1 / (1 + Math.exp(-v));

const FUNCTIONS: Readonly<Record<Activation, (v: number) => number>> = {
  none: (v) => v,
  relu: (v) => Math.max(v, 0),
  silu: (v) => v * sigmoid(v),
  gelu: (v) => 0.5 * v * (1 + erf(v / Math.SQRT2)),
  'gelu-tanh': (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))),
  'quick-gelu': (v) => v * sigmoid(1.702 * v),
  mish: (v) => v * Math.tanh(Math.log1p(Math.exp(v))),
};

/** Returns act(v). */
export const referenceActivation = (activation: Activation, v: number): number =>
  v < -700 && activation === 'mish' ? 0 : FUNCTIONS[activation](v);

const gaussian = (v: number): number => Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI);

/**
 * The derivatives of the functions above, by the rules of calculus. The derivative of relu at 0 is 0, as in
 * PyTorch.
 */
const SLOPES: Readonly<Record<Activation, (v: number) => number>> = {
  none: () => 1,
  relu: (v) => (v > 0 ? 1 : 0),
  silu: (v) => sigmoid(v) + v * sigmoid(v) * sigmoid(-v),
  gelu: (v) => 0.5 * (1 + erf(v / Math.SQRT2)) + v * gaussian(v),
  'gelu-tanh'(v) {
    const tanh = Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3));
    return 0.5 * (1 + tanh) + 0.5 * v * (1 - tanh ** 2) * Math.sqrt(2 / Math.PI) * (1 + 0.134145 * v * v);
  },
  'quick-gelu': (v) => sigmoid(1.702 * v) + 1.702 * v * sigmoid(1.702 * v) * sigmoid(-1.702 * v),
  mish(v) {
    const tanh = Math.tanh(Math.log1p(Math.exp(v)));
    return tanh + v * (1 - tanh ** 2) * sigmoid(v);
  },
};

/** Returns act'(v), for |v| up to 700. */
export const referenceSlope = (activation: Activation, v: number): number => SLOPES[activation](v);
