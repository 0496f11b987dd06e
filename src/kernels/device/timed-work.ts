// Times launches on a device: by its own timestamps if it has them, else by the clock of the host. The host's clock is
// too coarse for a GPU: waiting takes up to a millisecond, most kernels take microseconds.

import type { GpuComputePass } from '../../host-types.ts';
import type { Device } from './device.ts';
import type { Launch } from './launch.ts';
import { idle, prepare, submit } from './runtime.ts';
import { hasClock, timedPasses } from './timestamps.ts';

/**
 * Runs what `encode` adds to a pass `runs` times, and returns the milliseconds of one: on the device if it has
 * timestamps, and on the host, which includes submission and waiting.
 */
export async function timedRuns(
  device: Device,
  encode: (pass: GpuComputePass) => void,
  runs: number,
): Promise<{ readonly ms: number; readonly wallMs: number }> {
  const repeated = (pass: GpuComputePass): void => {
    for (let i = 0; i < runs; i++) encode(pass);
  };
  const start = performance.now();
  let ms = 0;
  if (hasClock(device)) {
    const [pass] = await timedPasses(device, [repeated]);
    ms = pass!.end - pass!.begin;
  } else {
    submit(device, repeated);
    await idle(device);
  }
  const wallMs = (performance.now() - start) / runs;
  // Some drivers return timestamps that do not advance or go backwards; then the host's clock counts.
  return { ms: ms > 0 ? ms / runs : wallMs, wallMs };
}

/** Compiled work that can be timed again and again. */
export interface TimedWork {
  /** Runs the work `runs` times and returns the milliseconds of one run. */
  readonly time: (runs: number) => Promise<number>;
  readonly destroy: () => void;
}

/** Compiles launches, and runs them once. */
export async function timedWork(device: Device, launches: readonly Launch[]): Promise<TimedWork> {
  const sequence = await prepare(device, launches);
  const encode = (pass: GpuComputePass) => sequence.encode(pass);
  submit(device, encode);
  await idle(device);
  return {
    time: async (runs) => (await timedRuns(device, encode, runs)).ms,
    destroy: sequence.destroy,
  };
}
