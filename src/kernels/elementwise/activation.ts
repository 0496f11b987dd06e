// Pointwise nonlinearities as WGSL, for all kernels that can apply one to their input or output.

/** Pointwise nonlinearities, named as in model configurations; `gelu` is the exact one, defined by erf. */
export const ACTIVATIONS = ['none', 'silu', 'gelu', 'gelu-tanh', 'quick-gelu', 'mish', 'relu'] as const;
export type Activation = (typeof ACTIVATIONS)[number];

// Every exponent is clamped where exp would overflow, because WGSL may assume that infinities never arise,
// and SwiftShader's tanh returns NaN for large arguments. 87 is just below ln(f32 max) = 88.7.
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

// Derivatives, with the same clamps. sigma' = s (1 - s); gelu' = Phi(v) + v phi(v);
// tanh(ln(1 + e)) = t / (t + 2) with t = e² + 2e has the derivative 4 e (e + 1) / (t + 2)²; relu'(0) = 0.
const SLOPES: Readonly<Record<Activation, (type: string) => string>> = {
  none: (type) => `return ${type}(1);`,
  relu: (type) => `return select(${type}(0), ${type}(1), v > ${type}(0));`,
  silu: (type) => `let w = clamp(v, ${type}(-87), ${type}(87));
  let s = 1 / (1 + exp(-w));
  return s + s * (1 - s) * w;`,
  'quick-gelu': (type) => `let w = 1.702 * clamp(v, ${type}(-51), ${type}(51));
  let s = 1 / (1 + exp(-w));
  return s + s * (1 - s) * w;`,
  'gelu-tanh': (type) => `let w = clamp(v, ${type}(-10), ${type}(10));
  let s = 1 / (1 + exp(w * (-1.5957691216 - 0.0713548163 * w * w)));
  return s + s * (1 - s) * w * (1.5957691216 + 0.2140644488 * w * w);`,
  mish: (type) => `let w = clamp(v, ${type}(-87), ${type}(20));
  let e = exp(w);
  let t = e * (e + 2);
  return t / (t + 2) + w * 4 * e * (e + 1) / ((t + 2) * (t + 2));`,
  gelu: (type) => `let z = abs(v) * 0.70710678118;
  let t = 1 / (1 + 0.3275911 * z);
  let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  let e = exp(-min(z * z, ${type}(87)));
  let tail = 0.5 * p * e;
  return select(tail, 1 - tail, v > ${type}(0)) + clamp(v, ${type}(-20), ${type}(20)) * 0.39894228 * e;`,
};

/**
 * Returns WGSL of `act(v: vec4f) -> vec4f` and of its scalar form `act1(v: f32) -> f32` (WGSL has no overloading). Both
 * are finite for all finite inputs, and within 1e-6 (absolute, and relative to |v|) of the exact function.
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

/**
 * Returns WGSL of the derivative, `slope(v: vec4f) -> vec4f` and `slope1(v: f32) -> f32`, as accurate as
 * `activationWgsl`.
 */
export function slopeWgsl(activation: Activation): string {
  const formula = SLOPES[activation];
  return /* wgsl */ `
fn slope(v: vec4f) -> vec4f {
  ${formula('vec4f')}
}
fn slope1(v: f32) -> f32 {
  ${formula('f32')}
}
`;
}
