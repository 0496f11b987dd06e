// Measures the ceilings that kernels on matrix units are compared with.
import { defineKernel, type Kernel, read, u32, write } from '../src/kernels/device/kernel.ts';
import { createStorage, type Launch } from '../src/kernels/device/runtime.ts';
import { unroll } from '../src/kernels/gemm/gemm-spec.ts';
import { measure } from './device/timing.ts';
import { randomHalves } from './matrix-check.ts';
import type { MatrixDevice } from './matrix-device.ts';
import type { MatrixUnit } from './matrix-kernels/gemm-matrix.ts';
import { MATRIX_MODULE } from './matrix-kernels/gemm-matrix.ts';
import { fmaKernel } from './peak-kernels.ts';

/** How long a repetition lasts and how many there are. */
export interface Repetitions {
  readonly count: number;
  readonly ms: number;
}

const DEFAULT: Repetitions = { count: 5, ms: 3 };

/** A launch that takes longer than half a second in all is timed fewer times. */
const LONGEST_MS = 500;

/** Returns the median milliseconds of one launch. */
export async function timeLaunch(
  { device }: MatrixDevice,
  launch: Launch,
  { count, ms }: Repetitions = DEFAULT,
): Promise<number> {
  const start = performance.now();
  const left = () => LONGEST_MS - (performance.now() - start);
  return (await measure(device, [launch], { samples: count, sampleMs: ms, left })).ms;
}

/** What the device reaches when nothing else holds it back. */
export interface Ceilings {
  /** TFLOP/s of each matrix unit, products in registers. */
  readonly matrix: Readonly<Record<string, number>>;
  readonly f32: number;
  /** Products and sums in f16; undefined if the device has none. */
  readonly f16: number | undefined;
  /** Gigabytes a second that a copy reads and writes. */
  readonly copy: number;
  /** Microseconds from one small dispatch to the next in the same pass. */
  readonly dispatch: number;
}

export const unitName = ({ M, N, K }: MatrixUnit): string => `${M}x${N}x${K}`;

interface Load {
  readonly kernel: (turns: number) => Kernel;
  /** Operations of one turn. */
  readonly flops: number;
}

/** Chains of products of a matrix unit; nothing is stored unless `u.keep` says so. */
function matrixLoad(
  unit: MatrixUnit,
  lanes: number,
  chains: number,
  subgroups: number,
  groups: number,
): Load {
  const { M, N, K } = unit;
  const inner = 4;
  const body = /* wgsl */ `
@compute @workgroup_size(${lanes * subgroups})
fn main(@builtin(workgroup_id) group: vec3u) {
  let a0 = subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, row_major>(&a, 0u, ${K}u);
  let a1 = subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, row_major>(&a, ${M * K}u, ${K}u);
  let b0 = subgroupMatrixLoad<subgroup_matrix_right<f16, ${N}, ${K}>, row_major>(&a, ${2 * M * K}u, ${N}u);
  ${unroll(chains, (i) => `var c${i}: subgroup_matrix_result<f32, ${N}, ${M}>;`)}
  for (var turn = 0u; turn < u.turns; turn++) {
    ${unroll(inner, (k) => unroll(chains, (i) => `c${i} = subgroupMatrixMultiplyAccumulate(a${k & 1}, b0, c${i});`))}
  }
  if (group.x == u.keep) { ${unroll(chains, (i) => `subgroupMatrixStore<row_major>(&c, ${i * M * N}u, c${i}, ${N}u);`)} }
}
`;
  return {
    kernel: (turns) =>
      defineKernel({
        name: `peak.matrix.${unitName(unit)}.${chains}x${subgroups}`,
        ...MATRIX_MODULE,
        bindings: [read('a', 'f16'), write('c', 'f32')],
        uniforms: [u32('turns', turns), u32('keep', 0)],
        body,
        grid: [groups, 1, 1],
      }),
    flops: groups * subgroups * inner * chains * 2 * M * N * K,
  };
}

/** Chains of fused products in registers, in vectors of four. */
const productLoad = (type: 'vec4f' | 'vec4h', groups: number): Load => ({
  kernel: (turns) => fmaKernel(type, groups, turns).kernel,
  flops: fmaKernel(type, groups, 1).flops,
});

const copyKernel = (vectors: number): Kernel =>
  defineKernel({
    name: 'peak.copy',
    bindings: [read('a', 'vec4f'), write('c', 'vec4f')],
    uniforms: [],
    body: '@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3u) { c[id.x] = a[id.x]; }',
    grid: [vectors / 256, 1, 1],
  });

/** Measures the ceilings; `groups` workgroups keep every core busy. */
export async function measureCeilings(
  opened: MatrixDevice,
  small: boolean,
  note: (line: string) => void,
): Promise<Ceilings> {
  const { device, units, lanes } = opened;
  const groups = small ? 8 : 132 * 32;
  const target = small ? 2 : 4;
  const size = small ? 2 ** 20 : 2 ** 27;
  const seeds = randomHalves(2 ** 18, 5).bits;
  const [a, c] = [createStorage(device, size, seeds), createStorage(device, size)];
  const ranges = [a, c].map((buffer) => ({ buffer, offset: 0, size }));
  const rate = async (load: Load): Promise<number> => {
    const first = 16;
    const once = await timeLaunch(opened, { kernel: load.kernel(first), ranges }, { count: 2, ms: 1 });
    const turns = Math.max(first, Math.min(1 << 20, Math.round((first * target) / once)));
    const ms = await timeLaunch(opened, { kernel: load.kernel(turns), ranges }, { count: 5, ms: target });
    return (load.flops * turns) / ms / 1e9;
  };
  const attempt = async (name: string, load: Load): Promise<number> => {
    try {
      const found = await rate(load);
      note(`ceiling ${name}: ${found.toFixed(1)} TFLOP/s`);
      return found;
    } catch (error) {
      note(`ceiling ${name}: ${error instanceof Error ? error.message : error}`);
      return 0;
    }
  };
  try {
    const f32 = await attempt('f32', productLoad('vec4f', groups));
    const matrix: Record<string, number> = {};
    for (const unit of units) {
      let best = 0;
      for (const [chains, subgroups] of small
        ? ([[4, 1]] as const)
        : ([
            [8, 4],
            [8, 8],
            [16, 4],
          ] as const)) {
        const load = matrixLoad(unit, lanes, chains, subgroups, groups / 4);
        best = Math.max(
          best,
          await attempt(`matrix ${unitName(unit)}, ${chains} chains, ${subgroups} subgroups`, load),
        );
      }
      matrix[unitName(unit)] = best;
    }
    const f16 = device.capabilities.f16 ? await attempt('f16', productLoad('vec4h', groups)) : undefined;
    const copyMs = await timeLaunch(opened, { kernel: copyKernel(size / 16), ranges });
    const dispatch =
      (await timeLaunch(opened, { kernel: copyKernel(256), ranges }, { count: 5, ms: small ? 1 : 2 })) * 1e3;
    const copy = (2 * size) / copyMs / 1e6;
    note(`copy ${copy.toFixed(0)} GB/s, a small dispatch ${dispatch.toFixed(1)} us`);
    return { matrix, f32, f16, copy, dispatch };
  } finally {
    a.destroy();
    c.destroy();
  }
}
