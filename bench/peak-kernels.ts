// A kernel that does nothing but products of the matrix units, to measure what they reach at most.
import { defineKernel, type Kernel, read, u32, write } from '../src/kernels/device/kernel.ts';
import type { MatrixUnit } from '../src/kernels/device/matrix-units.ts';
import { unroll } from '../src/kernels/gemm/gemm-spec.ts';
import { MATRIX_MODULE } from '../src/kernels/gemm/matrix-body.ts';

/** The size of a `matrixKernel`. */
export interface MatrixLoad {
  /** Result matrices of a subgroup, whose products do not wait for each other. */
  readonly chains: number;
  /** Subgroups per workgroup. */
  readonly subgroups: number;
  readonly groups: number;
  readonly turns: number;
}

/** Bytes that `x` and `y` of a `matrixKernel` must have: enough for every unit that an adapter lists. */
export const MATRIX_BYTES = 2 ** 16;

/**
 * Returns a kernel of products of matrix units (f16 factors, f32 sums) in registers, for subgroups of `lanes`, and its floating-point
 * operations. It multiplies the same operands `x` over and over, so that only the units themselves are timed. Only the
 * first workgroup stores its results in `y`.
 */
export function matrixKernel(
  { M, N, K }: MatrixUnit,
  lanes: number,
  { chains, subgroups, groups, turns }: MatrixLoad,
): { readonly kernel: Kernel; readonly flops: number } {
  const perTurn = 4;
  const left = `subgroup_matrix_left<f16, ${K}, ${M}>`;
  const right = `subgroup_matrix_right<f16, ${N}, ${K}>`;
  const body = /* wgsl */ `
@compute @workgroup_size(${lanes * subgroups})
fn main(@builtin(workgroup_id) group: vec3u) {
  let a0 = subgroupMatrixLoad<${left}, row_major>(&x, 0u, ${K}u);
  let a1 = subgroupMatrixLoad<${left}, row_major>(&x, ${M * K}u, ${K}u);
  let b0 = subgroupMatrixLoad<${right}, row_major>(&x, ${2 * M * K}u, ${N}u);
  ${unroll(chains, (i) => `var c${i}: subgroup_matrix_result<f32, ${N}, ${M}>;`)}
  for (var turn = 0u; turn < u.turns; turn++) {
    ${unroll(perTurn, (k) => unroll(chains, (i) => `c${i} = subgroupMatrixMultiplyAccumulate(a${k & 1}, b0, c${i});`))}
  }
  if (group.x == u.stored) { ${unroll(chains, (i) => `subgroupMatrixStore<row_major>(&y, ${i * M * N}u, c${i}, ${N}u);`)} }
}
`;
  const kernel = defineKernel({
    name: `bench.matrix.${M}x${N}x${K}.${chains}x${subgroups}`,
    ...MATRIX_MODULE,
    bindings: [read('x', 'f16'), write('y', 'f32')],
    uniforms: [u32('turns', turns), u32('stored', 0)],
    body,
    grid: [groups, 1, 1],
  });
  return { kernel, flops: groups * subgroups * turns * perTurn * chains * 2 * M * N * K };
}
