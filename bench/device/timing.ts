// Measures how long work takes on a device, in the form of the results file of `bench -- device`.

import { type KernelShare, kernelShares } from '../../src/bench/kernel-shares.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import { idle, type Launch, prepare, submit } from '../../src/kernels/device/runtime.ts';
import { isDisturbed, type Timing, time, timeEncoded } from '../../src/kernels/device/time.ts';
import { hasClock, MOST_PASSES, timedPasses } from '../../src/kernels/device/timestamps.ts';

export interface Measured extends Timing {
  /** Whether other work on the machine disturbed the measurement. */
  readonly disturbed: boolean;
}

export interface MeasureOptions {
  readonly samples?: number;
  /** How long a sample should last. */
  readonly sampleMs?: number;
  /** Returns the milliseconds that are left for the measurement. */
  readonly left?: () => number;
}

/** Times work that `encode` adds to a pass, `dispatches` dispatches each time. The pipelines must be compiled already. */
export async function measureEncoded(
  device: Device,
  encode: (pass: GPUComputePassEncoder) => void,
  dispatches: number,
  { samples = 5, sampleMs = 20, left }: MeasureOptions = {},
): Promise<Omit<Measured, 'firstMs'>> {
  const options = { repetitions: samples, repetitionMs: sampleMs, ...(left ? { left } : {}) };
  const timing = await timeEncoded(device, encode, dispatches, options);
  return { ...timing, disturbed: isDisturbed(timing) };
}

/** Compiles launches, runs them once, and times them. */
export async function measure(
  device: Device,
  launches: readonly Launch[],
  { samples = 5, sampleMs = 20, left }: MeasureOptions = {},
): Promise<Measured> {
  const timing = await time(device, launches, samples, sampleMs, left);
  return { ...timing, disturbed: isDisturbed(timing) };
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
      for (let from = 0; from < encoders.length; from += MOST_PASSES) {
        const passes = await timedPasses(device, encoders.slice(from, from + MOST_PASSES));
        times.push(...passes.map(({ begin, end }) => end - begin));
      }
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
