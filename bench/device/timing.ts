// Measures how long work takes on a device, by the device's own timestamps if it has them. The clock of the host,
// which `src/kernels/device/time.ts` uses, is too coarse for a GPU: waiting takes up to a millisecond, most kernels
// microseconds.

import type { Device } from '../../src/kernels/device/device.ts';
import { idle, type Launch, prepare, readBack, submit } from '../../src/kernels/device/runtime.ts';
import { type KernelShare, kernelShares } from '../kernel-shares.ts';
import { median } from '../median.ts';

export interface Measured {
  /** Median milliseconds of a run: device time if there are timestamps, else host time. */
  readonly ms: number;
  readonly least: number;
  readonly most: number;
  /** Median milliseconds by the clock of the host, including submission and waiting. */
  readonly wallMs: number;
  readonly clock: 'device' | 'host';
  /** Runs per sample. One pass repeats them so that it is long enough to measure. */
  readonly runs: number;
  readonly samples: number;
  /** Milliseconds of the first run, including compilation. */
  readonly firstMs: number;
}

export interface MeasureOptions {
  readonly samples?: number;
  /** How long a sample should last. */
  readonly sampleMs?: number;
  /** Returns the milliseconds that are left for the measurement. */
  readonly left?: () => number;
}

/** The most dispatches in one pass; encoding more would take the host longer than running them takes the device. */
const MOST_DISPATCHES = 8192;

/** Returns whether to use timestamps. A software adapter runs on the host, whose clock is precise enough. */
const hasClock = ({ capabilities }: Device): boolean => capabilities.timestamps && !capabilities.software;

const QUERY_RESOLVE = 0x200;
const COPY_SRC = 0x04;

/**
 * Runs passes in one submission, each with two timestamps, and returns each pass's milliseconds. A set of queries
 * holds 4096, so there may be 2048 passes.
 */
async function timedPasses(
  device: Device,
  encoders: readonly ((pass: GPUComputePassEncoder) => void)[],
): Promise<number[]> {
  const { gpu } = device;
  const count = 2 * encoders.length;
  const querySet = gpu.createQuerySet({ type: 'timestamp', count });
  const buffer = gpu.createBuffer({ size: 8 * count, usage: QUERY_RESOLVE | COPY_SRC });
  try {
    const encoder = gpu.createCommandEncoder();
    encoders.forEach((encode, i) => {
      const pass = encoder.beginComputePass({
        timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 },
      });
      encode(pass);
      pass.end();
    });
    encoder.resolveQuerySet(querySet, 0, count, buffer, 0);
    gpu.queue.submit([encoder.finish()]);
    const stamps = new BigUint64Array(await readBack(device, { buffer, offset: 0, size: 8 * count }));
    return encoders.map((_, i) => Number(stamps[2 * i + 1]! - stamps[2 * i]!) / 1e6);
  } finally {
    querySet.destroy();
    buffer.destroy();
  }
}

/** Times work that `encode` adds to a pass, `dispatches` dispatches each time. The pipelines must be compiled already. */
export async function measureEncoded(
  device: Device,
  encode: (pass: GPUComputePassEncoder) => void,
  dispatches: number,
  { samples = 5, sampleMs = 20, left = () => Number.POSITIVE_INFINITY }: MeasureOptions = {},
): Promise<Omit<Measured, 'firstMs'>> {
  const clock = hasClock(device);
  const run = async (runs: number): Promise<{ readonly ms: number; readonly wallMs: number }> => {
    const repeated = (pass: GPUComputePassEncoder): void => {
      for (let i = 0; i < runs; i++) encode(pass);
    };
    const start = performance.now();
    let ms: number | undefined;
    if (clock) ms = (await timedPasses(device, [repeated]))[0];
    else {
      submit(device, repeated);
      await idle(device);
    }
    const wallMs = (performance.now() - start) / runs;
    // Some drivers return timestamps that do not advance or go backwards; then the host's clock counts.
    return { ms: ms !== undefined && ms > 0 ? ms / runs : wallMs, wallMs };
  };
  let once = (await run(1)).ms;
  const most = Math.max(1, Math.floor(MOST_DISPATCHES / Math.max(1, dispatches)));
  if (once < sampleMs / 4) once = (await run(Math.min(most, 16))).ms;
  const runs = Math.max(1, Math.min(most, Math.ceil(sampleMs / once)));
  const times: { readonly ms: number; readonly wallMs: number }[] = [];
  while (times.length < samples) {
    times.push(await run(runs));
    if (left() < 2 * runs * times.at(-1)!.wallMs) break;
  }
  const all = times.map(({ ms }) => ms);
  return {
    ms: median(all),
    least: Math.min(...all),
    most: Math.max(...all),
    wallMs: median(times.map(({ wallMs }) => wallMs)),
    clock: clock ? 'device' : 'host',
    runs,
    samples: times.length,
  };
}

/** Compiles launches, runs them once, and times them. */
export async function measure(
  device: Device,
  launches: readonly Launch[],
  options: MeasureOptions = {},
): Promise<Measured> {
  const start = performance.now();
  const sequence = await prepare(device, launches);
  try {
    submit(device, (pass) => sequence.encode(pass));
    await idle(device);
    const firstMs = performance.now() - start;
    const timing = await measureEncoded(device, (pass) => sequence.encode(pass), launches.length, options);
    return { ...timing, firstMs };
  } finally {
    sequence.destroy();
  }
}

export interface Profile {
  /** Sum over all launches, each timed in its own pass. */
  readonly sumMs: number;
  readonly launches: number;
  readonly clock: 'device' | 'host';
  /** The kernels that take most time. */
  readonly kernels: readonly KernelShare[];
}

/** Times every launch of a run in its own pass and sums by kernel. */
export async function profile(
  device: Device,
  launches: readonly Launch[],
  {
    top = 15,
    left = () => Number.POSITIVE_INFINITY,
  }: { readonly top?: number; readonly left?: () => number } = {},
): Promise<Profile> {
  const sequence = await prepare(device, launches);
  const times: number[] = [];
  const clock = hasClock(device);
  try {
    const encoders = launches.map((_, i) => (pass: GPUComputePassEncoder) => sequence.encode(pass, i, i + 1));
    if (clock)
      for (let from = 0; from < encoders.length; from += 2048)
        times.push(...(await timedPasses(device, encoders.slice(from, from + 2048))));
    else
      for (const encode of encoders) {
        if (left() < 0) break;
        const start = performance.now();
        submit(device, encode);
        await idle(device);
        times.push(performance.now() - start);
      }
  } finally {
    sequence.destroy();
  }
  const sumMs = times.reduce((sum, ms) => sum + ms, 0);
  const names = launches.map(({ kernel }) => kernel.name);
  const kernels = kernelShares(names, times).slice(0, top);
  return { sumMs, launches: times.length, clock: clock ? 'device' : 'host', kernels };
}

/** Keeps the device busy for some milliseconds, because the clock rate of an idle GPU is low at first. */
export async function warmUp(device: Device, launch: Launch, milliseconds: number): Promise<void> {
  const sequence = await prepare(device, [launch]);
  const start = performance.now();
  while (performance.now() - start < milliseconds) {
    submit(device, (pass) => sequence.encode(pass));
    await idle(device);
  }
  sequence.destroy();
}
