// Small pieces that most elementwise kernels share: one invocation a vec4, and exact division by a shape's
// number without the integer division that software drivers do lane by lane.

import { f32, LINEAR_GROUP, type Uniform, u32 } from './kernel.ts';

/** Invocations of a workgroup of an elementwise kernel. */
export const LANES = 64;

/** A divisor in the uniform block: `name`, and `nameInverse` for `quotient(a, u.name, u.nameInverse)`. */
export const divisor = (name: string, value: number): readonly [Uniform, Uniform] => [
  u32(name, value),
  f32(`${name}Inverse`, 1 / value),
];

/**
 * `quotient(a, d, inverse) -> u32` is floor(a / d), exact for a < 2^31 and a / d < 2^22 with inverse = 1 / d in
 * f32: the float estimate is off by one at most, which the remainder's sign tells. 6 vector instructions where
 * u32 division is scalarised per lane.
 */
export const QUOTIENT = /* wgsl */ `
fn quotient(a: u32, d: u32, inverse: f32) -> u32 {
  let q = i32(f32(a) * inverse);
  let r = i32(a) - q * i32(d);
  return u32(q + select(0, 1, r >= i32(d)) - select(0, 1, r < 0));
}
`;

/** `linearIndex(group, groups, local)`: this invocation's index in a `linearGrid` of workgroups of `LANES`. */
export const LINEAR_INDEX = /* wgsl */ `${LINEAR_GROUP}
fn linearIndex(group: vec3u, groups: vec3u, local: u32) -> u32 {
  return linearGroup(group, groups) * ${LANES}u + local;
}
`;

/** The head of an elementwise `main`: its builtins by the names that `linearIndex` wants. */
export const ELEMENTWISE_MAIN = /* wgsl */ `@compute @workgroup_size(${LANES}) fn main(
  @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32)`;
