// Kernels that do one thing only, to measure what a device reaches at most: products in registers, products of the
// matrix units, and copies of memory.
import {
  defineKernel,
  type Kernel,
  LINEAR_GROUP,
  linearGrid,
  read,
  u32,
  write,
} from '../src/kernels/device/kernel.ts';
import type { Range } from '../src/kernels/device/runtime.ts';
import { unroll } from '../src/kernels/gemm/gemm-spec.ts';
import type { MatrixConfig } from './dawn.ts';
import { MATRIX_MODULE } from './matrix-kernels/matrix-body.ts';

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

/** The size of a `matrixKernel`. */
export interface MatrixLoad {
  /** Result matrices of a subgroup, whose products do not wait for each other. */
  readonly chains: number;
  /** Subgroups per workgroup. */
  readonly subgroups: number;
  readonly groups: number;
  readonly turns: number;
}

/** Bytes that both operands of a `matrixKernel` must have: enough for every unit that an adapter lists. */
export const MATRIX_BYTES = 2 ** 16;

/**
 * Returns a kernel of products of the matrix units in registers, for subgroups of `lanes`, and its floating-point
 * operations. It multiplies the same operands `x` over and over, so that only the units themselves are timed. Only the
 * first workgroup stores its results in `y`.
 */
export function matrixKernel(
  { M, N, K, componentType: from, resultComponentType: to }: MatrixConfig,
  lanes: number,
  { chains, subgroups, groups, turns }: MatrixLoad,
): { readonly kernel: Kernel; readonly flops: number } {
  const perTurn = 4;
  const left = `subgroup_matrix_left<${from}, ${K}, ${M}>`;
  const right = `subgroup_matrix_right<${from}, ${N}, ${K}>`;
  const body = /* wgsl */ `
@compute @workgroup_size(${lanes * subgroups})
fn main(@builtin(workgroup_id) group: vec3u) {
  let a0 = subgroupMatrixLoad<${left}, row_major>(&x, 0u, ${K}u);
  let a1 = subgroupMatrixLoad<${left}, row_major>(&x, ${M * K}u, ${K}u);
  let b0 = subgroupMatrixLoad<${right}, row_major>(&x, ${2 * M * K}u, ${N}u);
  ${unroll(chains, (i) => `var c${i}: subgroup_matrix_result<${to}, ${N}, ${M}>;`)}
  for (var turn = 0u; turn < u.turns; turn++) {
    ${unroll(perTurn, (k) => unroll(chains, (i) => `c${i} = subgroupMatrixMultiplyAccumulate(a${k & 1}, b0, c${i});`))}
  }
  if (group.x == u.stored) { ${unroll(chains, (i) => `subgroupMatrixStore<row_major>(&y, ${i * M * N}u, c${i}, ${N}u);`)} }
}
`;
  const kernel = defineKernel({
    name: `bench.matrix.${from}.${to}.${M}x${N}x${K}.${chains}x${subgroups}`,
    ...MATRIX_MODULE,
    bindings: [read('x', from), write('y', to)],
    uniforms: [u32('turns', turns), u32('stored', 0)],
    body,
    grid: [groups, 1, 1],
  });
  return { kernel, flops: groups * subgroups * turns * perTurn * chains * 2 * M * N * K };
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
