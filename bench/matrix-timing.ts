// Times launches by the device's own clock, and measures the ceilings that kernels are compared with.

import { defineKernel, type Kernel, read, u32, write } from '../src/kernels/device/kernel.ts';
import { createStorage, idle, type Launch, prepare } from '../src/kernels/device/runtime.ts';
import { parked } from '../src/kernels/device/wait.ts';
import type { MatrixUnit } from '../src/kernels/gemm/gemm-matrix.ts';
import { MATRIX_MODULE } from '../src/kernels/gemm/gemm-matrix.ts';
import { unroll } from '../src/kernels/gemm/gemm-spec.ts';
import { randomHalves } from './matrix-check.ts';
import type { MatrixDevice } from './matrix-device.ts';
import { median } from './median.ts';

/** How long a repetition lasts and how many there are. */
export interface Repetitions {
  readonly count: number;
  readonly ms: number;
}

const DEFAULT: Repetitions = { count: 5, ms: 3 };

/**
 * Milliseconds of one launch: the median over repetitions, each of many dispatches in one compute pass. The device's
 * timestamps are used if it has them, else the wall time of a submit.
 */
export async function timeLaunch(
  { device }: MatrixDevice,
  launch: Launch,
  { count, ms }: Repetitions = DEFAULT,
): Promise<number> {
  const { gpu } = device;
  const stamps = device.capabilities.timestamps;
  const sequence = await prepare(device, [launch]);
  const querySet = stamps ? gpu.createQuerySet({ type: 'timestamp', count: 2 * count }) : undefined;
  const bytes = 16 * count;
  const resolved = gpu.createBuffer({ size: bytes, usage: 0x200 | 0x04 }); // QUERY_RESOLVE | COPY_SRC
  const staging = gpu.createBuffer({ size: bytes, usage: 0x01 | 0x08 }); // MAP_READ | COPY_DST
  const run = async (passes: number, dispatches: number): Promise<number[]> => {
    const start = performance.now();
    const encoder = gpu.createCommandEncoder();
    for (let r = 0; r < passes; r++) {
      const pass = encoder.beginComputePass(
        querySet
          ? {
              timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * r, endOfPassWriteIndex: 2 * r + 1 },
            }
          : {},
      );
      for (let i = 0; i < dispatches; i++) sequence.encode(pass);
      pass.end();
    }
    if (querySet) {
      encoder.resolveQuerySet(querySet, 0, 2 * passes, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, bytes);
    }
    gpu.queue.submit([encoder.finish()]);
    await idle(device);
    if (!querySet) return [(performance.now() - start) / passes / dispatches];
    await parked(staging.mapAsync(1));
    const ticks = new BigUint64Array(staging.getMappedRange().slice(0));
    staging.unmap();
    return Array.from(
      { length: passes },
      (_, r) => Number(ticks[2 * r + 1]! - ticks[2 * r]!) / 1e6 / dispatches,
    );
  };
  try {
    await run(1, 1);
    const once = Math.max((await run(1, 1))[0]!, 1e-3);
    const dispatches = Math.max(1, Math.min(400, Math.ceil(ms / once)));
    if (querySet) return median(await run(once > 100 ? 1 : count, dispatches));
    const times: number[] = [];
    for (let r = 0; r < (once > 100 ? 1 : count); r++) times.push(...(await run(1, dispatches)));
    return median(times);
  } finally {
    sequence.destroy();
    querySet?.destroy();
    resolved.destroy();
    staging.destroy();
  }
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

/** Chains of fused products of an invocation's registers, in vectors of four. */
function productLoad(type: 'f32' | 'f16', groups: number): Load {
  const [chains, inner, threads] = [8, 8, 128];
  const vector = type === 'f32' ? 'vec4f' : 'vec4<f16>';
  const names = Array.from({ length: chains }, (_, i) => `c${i}`);
  const body = /* wgsl */ `
@compute @workgroup_size(${threads})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let s = ${vector}(a[0]) * ${type}(0.5);
  let t = ${vector}(a[1]);
  ${names.map((c, i) => `var ${c} = t * ${type}(${i});`).join(' ')}
  for (var turn = 0u; turn < u.turns; turn++) {
    ${unroll(inner, () => names.map((c) => `${c} = fma(s, ${c}, t);`).join(' '))}
  }
  if (id.x / ${threads}u == u.keep) { c[id.x % ${threads}u] = vec4f(${names.join(' + ')}); }
}
`;
  return {
    kernel: (turns) =>
      defineKernel({
        name: `peak.${type}`,
        enable: type === 'f16' ? ['f16'] : [],
        bindings: [read('a', 'vec4f'), write('c', 'vec4f')],
        uniforms: [u32('turns', turns), u32('keep', 0)],
        body,
        grid: [groups, 1, 1],
      }),
    flops: groups * threads * chains * inner * 8,
  };
}

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
    const f32 = await attempt('f32', productLoad('f32', groups));
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
    const f16 = device.capabilities.f16 ? await attempt('f16', productLoad('f16', groups)) : undefined;
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
