// Pointwise nonlinearities as WGSL, for every kernel that can apply one on the way in or out.

/** Pointwise nonlinearities by the names that model configurations use; `gelu` is the exact one, by erf. */
export type Activation = 'none' | 'silu' | 'gelu' | 'gelu-tanh' | 'quick-gelu' | 'mish' | 'relu';

export const ACTIVATIONS: readonly Activation[] = [
  'none',
  'silu',
  'gelu',
  'gelu-tanh',
  'quick-gelu',
  'mish',
  'relu',
];

// Every exponent is clamped on the side where exp would overflow: WGSL may assume that infinities never arise,
// and one driver's tanh gives NaN for large arguments. 87 is just below ln(f32 max) = 88.7.
//
// gelu(v) = max(v, 0) - |v|/2 erfc(|v|/sqrt 2), one formula without cancellation on both sides;
// erfc by Abramowitz & Stegun 7.1.26, |error| < 1.5e-7.
// mish(v) = v tanh(ln(1 + e)) with e = exp v, and tanh(ln(1 + e)) = (e² + 2e) / (e² + 2e + 2).
const FORMULAS: Readonly<Record<Activation, (type: string) => string>> = {
  none: () => 'return v;',
  relu: (type) => `return max(v, ${type}(0));`,
  silu: (type) => `return v / (1 + exp(-max(v, ${type}(-87))));`,
  'quick-gelu': (type) => `return v / (1 + exp(max(v, ${type}(-51)) * -1.702));`,
  'gelu-tanh': (type) => `let w = clamp(v, ${type}(-10), ${type}(10));
  return v / (1 + exp(w * (-1.5957691216 - 0.0713548163 * w * w)));`,
  mish: (type) => `let e = exp(min(v, ${type}(20)));
  let s = e * (e + 2);
  return v * (s / (s + 2));`,
  gelu: (type) => `let z = abs(v) * 0.70710678118;
  let t = 1 / (1 + 0.3275911 * z);
  let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return max(v, ${type}(0)) - 0.5 * abs(v) * p * exp(-min(z * z, ${type}(87)));`,
};

/**
 * WGSL of `act(v: vec4f) -> vec4f` and of its scalar twin `act1(v: f32) -> f32` (WGSL has no overloading).
 * Safe for all finite inputs; within 1e-6 (absolute, and relative to |v|) of the exact function.
 */
export function activationWgsl(activation: Activation): string {
  const formula = FORMULAS[activation];
  return /* wgsl */ `
fn act(v: vec4f) -> vec4f {
  ${formula('vec4f')}
}
fn act1(v: f32) -> f32 {
  ${formula('f32')}
}
`;
}
