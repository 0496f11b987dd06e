// When compute passes run on a device, by its own clock.

import type { GpuComputePass } from '../../host-types.ts';
import type { Device } from './device.ts';
import { readBack } from './runtime.ts';

/** Returns whether to use timestamps. A software adapter runs on the host, whose clock is precise enough. */
export const hasClock = ({ capabilities }: Device): boolean =>
  capabilities.timestamps && !capabilities.software;

const QUERY_RESOLVE = 0x200;
const COPY_SRC = 0x04;

/** The most passes whose timestamps fit into a set of queries: WebGPU allows 4096 queries. */
export const MOST_PASSES = 2048;

/** When a pass began and ended, in milliseconds of the device's clock. */
export interface PassTime {
  readonly begin: number;
  readonly end: number;
}

/** Returns the pass times in a buffer of resolved timestamps: pass i has two of them at 8-byte element `stride · i`. */
const passTimes = (stamps: BigUint64Array, count: number, stride: number): PassTime[] =>
  Array.from({ length: count }, (_, i) => ({
    begin: Number(stamps[stride * i]!) / 1e6,
    end: Number(stamps[stride * i + 1]!) / 1e6,
  }));

/** Runs passes in one submission and returns when each of them ran. There may be `MOST_PASSES` of them. */
export async function timedPasses(
  device: Device,
  encoders: readonly ((pass: GpuComputePass) => void)[],
): Promise<PassTime[]> {
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
    const bytes = await readBack(device, { buffer, offset: 0, size: 8 * count });
    return passTimes(new BigUint64Array(bytes), encoders.length, 2);
  } finally {
    querySet.destroy();
    buffer.destroy();
  }
}

/** A recording of the passes that a device runs. */
export interface PassRecorder {
  /** Returns the number of passes so far. */
  readonly passes: () => number;
  /** Ends the recording and returns when each pass ran, in the order of their encoding. */
  readonly end: () => Promise<PassTime[]>;
}

/**
 * Records when each compute pass of a device runs, by wrapping its command encoders, so that the product runs as it
 * always does. A resolve of timestamps writes to a multiple of 256 bytes, which is the size of 32 of them.
 */
export function recordPasses(device: Device): PassRecorder {
  const { gpu } = device;
  const STRIDE = 32;
  const create = gpu.createCommandEncoder.bind(gpu);
  const querySet = gpu.createQuerySet({ type: 'timestamp', count: 2 * MOST_PASSES });
  const buffers: GPUBuffer[] = [];
  let passes = 0;
  gpu.createCommandEncoder = (descriptor?: GPUCommandEncoderDescriptor) => {
    const encoder = create(descriptor);
    const begin = encoder.beginComputePass.bind(encoder);
    const finish = encoder.finish.bind(encoder);
    const pending: { readonly at: number; readonly to: GPUBuffer }[] = [];
    encoder.beginComputePass = (options) => {
      const at = passes++ % MOST_PASSES;
      if (at === 0)
        buffers.push(gpu.createBuffer({ size: 8 * STRIDE * MOST_PASSES, usage: QUERY_RESOLVE | COPY_SRC }));
      pending.push({ at, to: buffers.at(-1)! });
      return begin({
        ...options,
        timestampWrites: {
          querySet,
          beginningOfPassWriteIndex: 2 * at,
          endOfPassWriteIndex: 2 * at + 1,
        },
      });
    };
    encoder.finish = (options) => {
      for (const { at, to } of pending) encoder.resolveQuerySet(querySet, 2 * at, 2, to, 8 * STRIDE * at);
      return finish(options);
    };
    return encoder;
  };
  return {
    passes: () => passes,
    async end() {
      gpu.createCommandEncoder = create;
      const times: PassTime[] = [];
      for (const [i, buffer] of buffers.entries()) {
        const bytes = await readBack(device, { buffer, offset: 0, size: buffer.size });
        const count = Math.min(MOST_PASSES, passes - i * MOST_PASSES);
        times.push(...passTimes(new BigUint64Array(bytes), count, STRIDE));
        buffer.destroy();
      }
      querySet.destroy();
      return times;
    },
  };
}

/** How long a device was busy between its first and its last pass, in milliseconds. */
export interface Occupancy {
  /** The time in which a pass ran. */
  readonly busyMs: number;
  /** The time from the beginning of the first pass to the end of the last one. */
  readonly spanMs: number;
  /** The share of the span in which no pass ran, in [0, 1]. */
  readonly idleShare: number;
}

/** Returns the occupancy of a device by the times of its passes, which may overlap; undefined if there are none. */
export function occupancyOf(passes: readonly PassTime[]): Occupancy | undefined {
  const sorted = [...passes].sort((a, b) => a.begin - b.begin);
  const first = sorted[0];
  if (!first) return undefined;
  let busyMs = 0;
  let last = first.begin;
  for (const { begin, end } of sorted) {
    busyMs += Math.max(0, end - Math.max(begin, last));
    last = Math.max(last, end);
  }
  const spanMs = last - first.begin;
  return { busyMs, spanMs, idleShare: spanMs > 0 ? 1 - busyMs / spanMs : 0 };
}
