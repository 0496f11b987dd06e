// What this device reaches without a kernel's burdens, measured in the same run as everything it is the yardstick of:
// multiplications and additions in registers in f32 and f16, matrix units, copies of memory, and what a launch costs.
import { type Device, openDevice } from '../../src/kernels/device/device.ts';
import {
  accumulate,
  defineKernel,
  type Kernel,
  LINEAR_GROUP,
  linearGrid,
  read,
  write,
} from '../../src/kernels/device/kernel.ts';
import { createStorage, idle, readBack } from '../../src/kernels/device/runtime.ts';
import { EXTRA_FLAGS, type MatrixConfig, matrixConfigs, openWith } from '../dawn.ts';
import { median } from '../median.ts';
import { fmaKernel, whole } from '../peak-kernels.ts';
import { launchCost } from './launch-cost.ts';
import { randomBlock } from './random-weights.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { measure, warmUp } from './timing.ts';

export interface Rate {
  readonly gflops: number;
  readonly ms: number;
  readonly workgroups: number;
}

/**
 * Grows the number of workgroups until the rate no longer does: 256 fill a laptop's GPU, and an H100 holds 1900 of
 * them at once.
 */
async function fmaRate(
  device: Device,
  type: 'vec4f' | 'vec4h' | 'vec2h',
  left: () => number,
): Promise<Rate & { readonly sweep: readonly Rate[] }> {
  const sweep: Rate[] = [];
  const { software } = device.capabilities;
  const x = createStorage(device, 4096, new Float32Array(1024).fill(0.9));
  try {
    for (let groups = 256; groups <= 65536; groups *= 4) {
      const { kernel, flops, bytes } = fmaKernel(type, groups, software ? 64 : 256);
      const y = createStorage(device, bytes);
      try {
        const { ms } = await measure(device, [{ kernel, ranges: [whole(x), whole(y)] }], {
          samples: 5,
          sampleMs: 30,
          left,
        });
        sweep.push({ gflops: flops / ms / 1e6, ms, workgroups: groups });
      } finally {
        y.destroy();
      }
      const [last, before] = [sweep.at(-1)!, sweep.at(-2)];
      // Longer than a few milliseconds and no faster than a quarter of the workgroups: it is flat.
      if (left() < 4 * last.ms * 20 || (before && last.ms > 2 && last.gflops < 1.02 * before.gflops)) break;
    }
  } finally {
    x.destroy();
  }
  const best = sweep.reduce((top, rate) => (rate.gflops > top.gflops ? rate : top));
  return { ...best, sweep };
}

/**
 * Products of the matrix units in registers: a subgroup keeps 2 x 2 results and multiplies the same operands over and
 * over, so that only the units themselves are timed.
 */
function matrixKernel(
  config: MatrixConfig,
  subgroup: number,
  groups: number,
  turns: number,
): { kernel: Kernel; flops: number; bytes: number } {
  const { M, N, K, componentType, resultComponentType } = config;
  const [from, to] = [componentType, resultComponentType];
  const subgroups = 4;
  const size = subgroup * subgroups;
  const operands = Math.max(M * K, K * N);
  const types = `
alias Left = subgroup_matrix_left<${from}, ${K}, ${M}>;
alias Right = subgroup_matrix_right<${from}, ${N}, ${K}>;
alias Result = subgroup_matrix_result<${to}, ${N}, ${M}>;`;
  const pairs = [0, 1, 2, 3];
  const wgsl = /* wgsl */ `enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
@group(0) @binding(0) var<storage, read> x: array<${from}>;
@group(0) @binding(1) var<storage, read_write> y: array<${to}>;
${types}
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let a0 = subgroupMatrixLoad<Left, row_major>(&x, 0, ${K});
  let a1 = subgroupMatrixLoad<Left, row_major>(&x, ${operands}, ${K});
  let b0 = subgroupMatrixLoad<Right, row_major>(&x, 0, ${N});
  let b1 = subgroupMatrixLoad<Right, row_major>(&x, ${operands}, ${N});
  ${pairs.map((i) => `var c${i}: Result;`).join(' ')}
  for (var turn = 0u; turn < ${turns}u; turn++) {
    ${pairs.map((i) => `c${i} = subgroupMatrixMultiplyAccumulate(a${i >> 1}, b${i & 1}, c${i});`).join('\n    ')}
  }
  let at = (group.x * ${subgroups}u + lane / ${subgroup}u) * ${4 * M * N}u;
  ${pairs.map((i) => `subgroupMatrixStore<row_major>(&y, at + ${i * M * N}u, c${i}, ${N});`).join('\n  ')}
}
`;
  const kernel: Kernel = {
    name: `bench.matrix.${from}.${to}.${M}x${N}x${K}`,
    bindings: [read('x', from), accumulate('y', to)],
    uniforms: [],
    wgsl,
    grid: [groups, 1, 1],
  };
  const bytesOf = (type: string) => (type.endsWith('16') ? 2 : type.endsWith('8') ? 1 : 4);
  return {
    kernel,
    flops: groups * subgroups * turns * 4 * 2 * M * N * K,
    bytes: groups * subgroups * 4 * M * N * bytesOf(to),
  };
}

/** WGSL's name of an element type of a matrix configuration; 8-bit types are elements of words in memory. */
const isFloat = ({ componentType, resultComponentType }: MatrixConfig): boolean =>
  [componentType, resultComponentType].every((type) => type === 'f16' || type === 'f32');

async function matrixRates(device: Device, info: GPUAdapterInfo, step: Step): Promise<unknown> {
  const configs = matrixConfigs(info).filter(isFloat);
  if (configs.length === 0)
    return { skipped: 'the device has no matrix units for floats, or Dawn does not offer them' };
  const { software } = device.capabilities;
  const subgroup = info.subgroupMaxSize ?? 32;
  const found: unknown[] = [];
  for (const config of configs) {
    if (step.over()) break;
    const rates: Rate[] = [];
    try {
      for (let groups = software ? 32 : 1024; groups <= 65535; groups *= 4) {
        const { kernel, flops, bytes } = matrixKernel(config, subgroup, groups, software ? 32 : 1024);
        const x = createStorage(device, 65536, new Uint16Array(32768).fill(0x2c00));
        const y = createStorage(device, bytes);
        try {
          const { ms } = await measure(device, [{ kernel, ranges: [whole(x), whole(y)] }], {
            samples: 5,
            sampleMs: 20,
            left: step.left,
          });
          rates.push({ gflops: flops / ms / 1e6, ms, workgroups: groups });
        } finally {
          x.destroy();
          y.destroy();
        }
        const [last, before] = [rates.at(-1)!, rates.at(-2)];
        if (software || step.over() || last.ms > 40 || (before && last.gflops < 1.02 * before.gflops)) break;
      }
      const best = rates.reduce((top, rate) => (rate.gflops > top.gflops ? rate : top));
      step.say(
        `matrix ${config.componentType} -> ${config.resultComponentType} ${config.M}x${config.N}x${config.K}: ${best.gflops.toFixed(0)} GFLOP/s`,
      );
      found.push({ ...config, ...best, sweep: rates });
    } catch (error) {
      found.push({ ...config, error: messageOf(error), sweep: rates });
    }
  }
  return found;
}

/** Copies by a kernel with a vec4 an invocation, by the walk of the product's kernels, and by the driver. */
async function copyRates(device: Device, step: Step): Promise<Record<string, number>> {
  const { software, maxBindingBytes } = device.capabilities;
  // Larger than any cache: an H100 has 50 MB of it.
  const size = Math.min(maxBindingBytes, software ? 2 ** 26 : 2 ** 29);
  const [x, y] = [createStorage(device, size), createStorage(device, size)];
  const found: Record<string, number> = { mebibytes: size / 2 ** 20 };
  try {
    const fill = randomBlock();
    for (let from = 0; from < size; from += fill.byteLength)
      device.gpu.queue.writeBuffer(x, from, fill, 0, Math.min(fill.length, (size - from) / 4));
    const body = (lanes: number, perLane: number) => /* wgsl */ `${LINEAR_GROUP}
@compute @workgroup_size(${lanes}) fn main(@builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = linearGroup(group, groups) * ${lanes * perLane}u + lane;
  for (var i = 0u; i < ${perLane}u; i++) { y[start + i * ${lanes}u] = x[start + i * ${lanes}u]; }
}`;
    const vectors = size / 16;
    for (const [lanes, perLane] of [
      [64, 1],
      [256, 1],
      [256, 4],
      [256, 16],
      [8, 2048],
    ] as const) {
      const kernel = defineKernel({
        name: 'bench.copy',
        bindings: [read('x', 'vec4f'), write('y', 'vec4f')],
        uniforms: [],
        body: body(lanes, perLane),
        grid: linearGrid(Math.ceil(vectors / (lanes * perLane))),
      });
      const { ms } = await measure(device, [{ kernel, ranges: [whole(x), whole(y)] }], {
        sampleMs: 30,
        left: step.left,
      });
      found[`kernel ${lanes} lanes x ${perLane}`] = (2 * size) / ms / 1e6;
      if (step.over()) break;
    }
    const copies = software ? 2 : 20;
    const times: number[] = [];
    for (let sample = 0; sample < 4; sample++) {
      const start = performance.now();
      const encoder = device.gpu.createCommandEncoder();
      for (let i = 0; i < copies; i++) encoder.copyBufferToBuffer(x, 0, y, 0, size);
      device.gpu.queue.submit([encoder.finish()]);
      await idle(device);
      times.push((performance.now() - start) / copies);
    }
    found.copyBufferToBuffer = (2 * size) / median(times) / 1e6;
    // From the host and back, as images and results travel.
    const host = new Float32Array(2 ** 24);
    const start = performance.now();
    for (let i = 0; i < 4; i++) device.gpu.queue.writeBuffer(y, 0, host, 0, Math.min(host.length, size / 4));
    await idle(device);
    found['host to device'] = (4 * Math.min(host.byteLength, size)) / (performance.now() - start) / 1e6;
    const back = performance.now();
    await readBack(device, { buffer: y, offset: 0, size: Math.min(host.byteLength, size) });
    found['device to host'] = Math.min(host.byteLength, size) / (performance.now() - back) / 1e6;
  } finally {
    x.destroy();
    y.destroy();
  }
  return found;
}

/** Peaks that later steps divide by. */
export interface Peak {
  gflops: number;
  gbytes: number;
  [key: string]: unknown;
}

export async function measurePeaks(session: Session, step: Step): Promise<Peak> {
  const device = await session.device();
  const found: Peak = { gflops: 0, gbytes: 0 };
  const attempt = async (name: string, make: () => Promise<unknown>): Promise<void> => {
    try {
      found[name] = await make();
    } catch (error) {
      found[name] = { error: messageOf(error) };
      step.say(`${name}: ${messageOf(error)}`);
    }
    step.keep(found);
  };
  if (!device.capabilities.software)
    await attempt('warmUp', async () => {
      const { kernel, bytes } = fmaKernel('vec4f', 4096, 256);
      const [x, y] = [createStorage(device, 4096), createStorage(device, bytes)];
      await warmUp(device, { kernel, ranges: [whole(x), whole(y)] }, 500);
      x.destroy();
      y.destroy();
      return 500;
    });
  await attempt('fma', async () => {
    const rate = await fmaRate(device, 'vec4f', step.left);
    found.gflops = rate.gflops;
    step.say(`f32 in registers: ${rate.gflops.toFixed(1)} GFLOP/s (${rate.workgroups} workgroups)`);
    return rate;
  });
  await attempt('copy', async () => {
    const rates = await copyRates(device, step);
    const { mebibytes: _, 'host to device': _to, 'device to host': _from, ...copies } = rates;
    found.gbytes = Math.max(...Object.values(copies));
    step.say(
      `copy: ${found.gbytes.toFixed(1)} GB/s, host to device ${_to?.toFixed(2)} GB/s, back ${_from?.toFixed(2)}`,
    );
    return rates;
  });
  await attempt('launch', async () => {
    const cost = await launchCost(device);
    for (const [name, us] of Object.entries(cost)) step.say(`${name}: ${us.toFixed(1)} us`);
    return cost;
  });
  return found;
}

/** f16 and matrix units, which need flags of Dawn that the product does not set. */
export async function measureExtra(session: Session, step: Step): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  const { gpu, info } = await openWith(EXTRA_FLAGS);
  try {
    const opened = await openDevice({ device: gpu });
    session.watch(opened, 'extra flags');
    let f16Gflops = 0;
    if (opened.capabilities.f16)
      for (const type of ['vec4h', 'vec2h'] as const) {
        try {
          const rate = await fmaRate(opened, type, step.left);
          found[type] = rate;
          f16Gflops = Math.max(f16Gflops, rate.gflops);
          found.f16Gflops = f16Gflops;
          step.say(`f16 in registers (${type}): ${rate.gflops.toFixed(1)} GFLOP/s`);
        } catch (error) {
          found[type] = { error: messageOf(error) };
        }
        step.keep(found);
      }
    else found.f16 = { skipped: 'no shader-f16' };
    const matrix = await matrixRates(opened, info, step);
    found.matrix = matrix;
    if (Array.isArray(matrix))
      found.matrixGflops = Math.max(0, ...matrix.map(({ gflops = 0 }: { gflops?: number }) => gflops));
    return found;
  } finally {
    gpu.destroy();
  }
}
