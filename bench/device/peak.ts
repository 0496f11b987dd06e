// Measures what this device reaches at most, in the same run as everything that is compared with it: multiplications and
// additions in registers in f32 and f16, matrix units, copies of memory, and the cost of a launch.
import { copyKernel, fmaKernel, whole } from '../../src/bench/peak-kernels.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import { createStorage, idle, readBack } from '../../src/kernels/device/runtime.ts';
import { median } from '../../src/numbers.ts';
import { MATRIX_BYTES, matrixKernel } from '../peak-kernels.ts';
import { launchCost } from './launch-cost.ts';
import { randomBlock } from './random-weights.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { measure, warmUp } from './timing.ts';

export interface Rate {
  readonly gflops: number;
  readonly ms: number;
  readonly workgroups: number;
}

const fastest = (rates: readonly Rate[]): Rate =>
  rates.reduce((top, rate) => (rate.gflops > top.gflops ? rate : top));

/**
 * Measures the rate of products in registers, with more and more workgroups until the rate stops growing: 256 fill a
 * laptop's GPU, and an H100 holds 1900 of them at once.
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
      // The rate is flat if a run of a few milliseconds is no faster than one with a quarter of the workgroups.
      if (left() < 4 * last.ms * 20 || (before && last.ms > 2 && last.gflops < 1.02 * before.gflops)) break;
    }
  } finally {
    x.destroy();
  }
  return { ...fastest(sweep), sweep };
}

/** Measures products of every size of matrix units that the product can use: f16 factors and f32 sums. */
async function matrixRates(device: Device, step: Step): Promise<readonly unknown[]> {
  const { software, matrix = [], subgroupMaxSize: lanes = 32 } = device.capabilities;
  const found: unknown[] = [];
  for (const unit of matrix) {
    if (step.over()) break;
    const rates: Rate[] = [];
    try {
      for (let groups = software ? 32 : 1024; groups <= 65535; groups *= 4) {
        const turns = software ? 8 : 256;
        const { kernel, flops } = matrixKernel(unit, lanes, { chains: 4, subgroups: 4, groups, turns });
        const x = createStorage(device, MATRIX_BYTES, new Uint16Array(MATRIX_BYTES / 2).fill(0x2c00));
        const y = createStorage(device, MATRIX_BYTES);
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
      const best = fastest(rates);
      step.say(`matrix units of ${unit.M}x${unit.N}x${unit.K}: ${best.gflops.toFixed(0)} GFLOP/s`);
      found.push({ ...unit, ...best, sweep: rates });
    } catch (error) {
      found.push({ ...unit, error: messageOf(error), sweep: rates });
    }
  }
  return found;
}

/** Measures copies by a kernel, with several numbers of invocations and of vec4s per invocation, and by the driver. */
async function copyRates(device: Device, step: Step): Promise<Record<string, number>> {
  const { software, maxBindingBytes } = device.capabilities;
  // Larger than any cache: an H100 has one of 50 MB.
  const size = Math.min(maxBindingBytes, software ? 2 ** 26 : 2 ** 29);
  const [x, y] = [createStorage(device, size), createStorage(device, size)];
  const found: Record<string, number> = { mebibytes: size / 2 ** 20 };
  try {
    const fill = randomBlock();
    for (let from = 0; from < size; from += fill.byteLength)
      device.gpu.queue.writeBuffer(x, from, fill, 0, Math.min(fill.length, (size - from) / 4));
    const vectors = size / 16;
    for (const [lanes, perLane] of [
      [64, 1],
      [256, 1],
      [256, 4],
      [256, 16],
      [8, 2048],
    ] as const) {
      const kernel = copyKernel(vectors, lanes, perLane);
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
    // Images travel from the host to the device, and results travel back.
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

/** The peaks, which later steps divide by. */
export interface Peak {
  /** Products and sums in registers in f32, in 10^9 operations per second. */
  gflops: number;
  /** The same in f16; undefined if the device has no f16. */
  f16Gflops?: number;
  /** Products of matrix units; undefined if the device has none. */
  matrixGflops?: number;
  /** Bytes read and written by a copy, in 10^9 per second. */
  gbytes: number;
  [key: string]: unknown;
}

/** Measures the peaks. A part that fails is recorded as `{ error }`. */
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
  const { f16, matrix = [] } = device.capabilities;
  if (f16)
    for (const type of ['vec4h', 'vec2h'] as const)
      await attempt(type, async () => {
        const rate = await fmaRate(device, type, step.left);
        found.f16Gflops = Math.max(found.f16Gflops ?? 0, rate.gflops);
        step.say(`f16 in registers (${type}): ${rate.gflops.toFixed(1)} GFLOP/s`);
        return rate;
      });
  if (matrix.length > 0)
    await attempt('matrix', async () => {
      const rates = await matrixRates(device, step);
      found.matrixGflops = Math.max(...rates.map((rate) => (rate as Partial<Rate>).gflops ?? 0));
      return rates;
    });
  return found;
}
