// Measures how long work takes on a device, by the device's own timestamps if it has them. The clock of the host,
// which `src/kernels/device/time.ts` uses, is too coarse for a GPU: waiting takes up to a millisecond, most kernels
// microseconds.

import type { Device } from '../../src/kernels/device/device.ts';
import { idle, type Launch, prepare, submit } from '../../src/kernels/device/runtime.ts';
import { hasClock, timedPasses, timedRuns } from '../../src/kernels/device/timed-work.ts';
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

/** Times work that `encode` adds to a pass, `dispatches` dispatches each time. The pipelines must be compiled already. */
export async function measureEncoded(
  device: Device,
  encode: (pass: GPUComputePassEncoder) => void,
  dispatches: number,
  { samples = 5, sampleMs = 20, left = () => Number.POSITIVE_INFINITY }: MeasureOptions = {},
): Promise<Omit<Measured, 'firstMs'>> {
  const run = (runs: number) => timedRuns(device, encode, runs);
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
    clock: hasClock(device) ? 'device' : 'host',
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
