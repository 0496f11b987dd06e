// Times launches on a device: by its own timestamps if it has them, else by the clock of the host. The host's clock is
// too coarse for a GPU: waiting takes up to a millisecond, most kernels take microseconds.

import type { GpuComputePass } from '../../host-types.ts';
import type { Device } from './device.ts';
import type { Launch } from './launch.ts';
import { idle, prepare, readBack, submit } from './runtime.ts';

/** Returns whether to use timestamps. A software adapter runs on the host, whose clock is precise enough. */
export const hasClock = ({ capabilities }: Device): boolean =>
  capabilities.timestamps && !capabilities.software;

const QUERY_RESOLVE = 0x200;
const COPY_SRC = 0x04;

/**
 * Runs passes in one submission, each with two timestamps, and returns each pass's milliseconds. A set of queries
 * holds 4096, so there may be 2048 passes.
 */
export async function timedPasses(
  device: Device,
  encoders: readonly ((pass: GpuComputePass) => void)[],
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
  let ms: number | undefined;
  if (hasClock(device)) ms = (await timedPasses(device, [repeated]))[0];
  else {
    submit(device, repeated);
    await idle(device);
  }
  const wallMs = (performance.now() - start) / runs;
  // Some drivers return timestamps that do not advance or go backwards; then the host's clock counts.
  return { ms: ms !== undefined && ms > 0 ? ms / runs : wallMs, wallMs };
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
