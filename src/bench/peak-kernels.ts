// Kernels that do one thing only, to measure what a device reaches at most: products in registers, and copies of memory.

import {
  defineKernel,
  type Kernel,
  LINEAR_GROUP,
  linearGrid,
  read,
  write,
} from '../kernels/device/kernel.ts';
import type { Range } from '../kernels/device/runtime.ts';

/**
 * Returns a kernel of independent chains of products and sums in registers, with 64 invocations per workgroup, its
 * floating-point operations, and the bytes that it writes.
 */
export function fmaKernel(type: 'vec4f' | 'vec4h' | 'vec2h', groups: number, turns: number) {
  const [chains, depth] = [type === 'vec2h' ? 32 : 16, 8];
  const half = type !== 'vec4f';
  const names = Array.from({ length: chains }, (_, i) => `c${i}`);
  const suffix = half ? 'h' : '';
  const vector = type === 'vec2h' ? 'vec2f' : 'vec4f';
  const body = /* wgsl */ `${LINEAR_GROUP}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32) {
  let a = ${type}(x[0]) * 0.5${suffix};
  let b = ${type}(x[1]);
  ${names.map((c, i) => `var ${c} = b * ${i}.0${suffix};`).join(' ')}
  for (var turn = 0u; turn < ${turns}u; turn++) {
    ${names.map((c) => `${c} = ${'fma(a, '.repeat(depth)}${c}${', b)'.repeat(depth)};`).join('\n    ')}
  }
  y[linearGroup(group, groups) * 64u + lane] = ${vector}(${names.join(' + ')});
}
`;
  const kernel = defineKernel({
    name: `bench.fma.${type}`,
    enable: half ? ['f16'] : [],
    bindings: [read('x', vector), write('y', vector)],
    uniforms: [],
    body,
    grid: linearGrid(groups),
  });
  const width = type === 'vec2h' ? 2 : 4;
  return { kernel, flops: groups * 64 * turns * depth * chains * width * 2, bytes: groups * 64 * 4 * width };
}

/** Returns a kernel that copies vec4s from `x` to `y`, with `perLane` vec4s per invocation. */
export const copyKernel = (vectors: number, lanes = 256, perLane = 1): Kernel =>
  defineKernel({
    name: 'bench.copy',
    bindings: [read('x', 'vec4f'), write('y', 'vec4f')],
    uniforms: [],
    body: /* wgsl */ `${LINEAR_GROUP}
@compute @workgroup_size(${lanes}) fn main(@builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = linearGroup(group, groups) * ${lanes * perLane}u + lane;
  for (var i = 0u; i < ${perLane}u; i++) { y[start + i * ${lanes}u] = x[start + i * ${lanes}u]; }
}`,
    grid: linearGrid(Math.ceil(vectors / (lanes * perLane))),
  });

/** Returns the range of a whole buffer. */
export const whole = (buffer: GPUBuffer): Range => ({ buffer, offset: 0, size: buffer.size });
