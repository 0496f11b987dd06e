// A graph at several batch sizes, ready to run: plans that share their memory and are created at their first use, and the
// transfer of a run's inputs to the device and of its outputs back.

import { DeviceLostError, OutOfMemoryError } from '../../errors.ts';
import type { Device } from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import { idle, type Range, submit, withMemoryCheck } from '../../kernels/device/runtime.ts';
import type { Stored } from '../../kernels/device/storage.ts';
import { waitFor } from '../../kernels/device/wait.ts';
import type { Graph } from './graph.ts';
import { type Plan, plan } from './plan.ts';
import { type ActivationPool, activationPool } from './pool.ts';
import type { WeightStore } from './weight-store.ts';

/** The samples of a run, and its views: the distinct (slot, level, noise) of the samples, which share a part of the network. */
export interface RunSize {
  readonly samples: number;
  readonly views: number;
}

export interface RunnerOptions {
  readonly weights: WeightStore;
  readonly weightDtype: WeightDtype;
  /** How activations are stored; see `PlanOptions.precision`. */
  readonly precision?: Stored | undefined;
  /** Memory of inputs that the caller owns, by the names of the inputs. */
  readonly external: Readonly<Record<string, Range>>;
  readonly trace: (size: RunSize) => Graph;
  /** The most samples of a run. It is halved repeatedly while the device has too little memory. */
  readonly largest: number;
  /**
   * Whether the samples of a view share a part of the network, so that plans also differ in their number of views. A
   * number means that they share all of it, so that only views cost time: the most samples per view.
   */
  readonly sharing?: boolean | number;
  /** Whether all sizes are created and run immediately, so that no batch waits for the shader compiler. */
  readonly warm?: boolean;
}

export interface Runner {
  /** The most samples and views of a run. */
  readonly samples: number;
  readonly views: number;
  readonly bytes: () => number;
  /** Returns the smallest size that holds the samples and views; undefined if there is none. */
  fitting(samples: number, views?: number): RunSize | undefined;
  /**
   * Runs a size and returns the storage of the outputs, by name. Inputs are given by name; an input that is shorter than
   * the size is padded with zeros. Calls may overlap; runs are executed, and results returned, in the order of the calls.
   * Rejects with `DeviceLostError` if the device is lost.
   */
  run(
    size: RunSize,
    inputs: Readonly<Record<string, ArrayBufferView>>,
    outputs: readonly string[],
  ): Promise<Record<string, Float32Array<ArrayBuffer>>>;
  destroy(): void;
}

/** A plan, and the staging buffers that no run uses at the moment. */
interface Planned {
  readonly plan: Plan;
  readonly staging: GPUBuffer[];
}

/**
 * Returns the sizes, smallest first: the largest batch, and repeated halves of it, so that a short batch does not run at
 * full length. If samples share a part of the network, each has three variants: one view, a view per 4 samples, and a view
 * per sample.
 */
function sizesOf(largest: number, sharing: boolean | number): RunSize[] {
  if (typeof sharing === 'number')
    return sizesOf(Math.ceil(largest / sharing), false).map(({ views }) => ({
      samples: views * sharing,
      views,
    }));
  const counts = [largest];
  for (let size = largest / 2; size >= (sharing ? 1 : 8) && size * 16 >= largest; size /= 2)
    counts.push(Math.ceil(size));
  return counts.reverse().flatMap((samples) => {
    const views = sharing ? new Set([1, Math.ceil(samples / 4), samples]) : [samples];
    return [...views].map((count) => ({ samples, views: count }));
  });
}

const keyOf = ({ samples, views }: RunSize) => `${samples} ${views}`;

/**
 * Returns the runner of a graph, with the plan of its largest size.
 * @throws OutOfMemoryError if not even a batch of one sample fits into the device's memory.
 */
export async function openRunner(device: Device, options: RunnerOptions): Promise<Runner> {
  const { weights, weightDtype, precision, external, trace, sharing = false, warm = false } = options;
  const make = async (size: RunSize, pool: ActivationPool): Promise<Planned> => ({
    plan: await plan(device, trace(size), { weights, weightDtype, precision, external, pool }),
    staging: [],
  });
  const open = async (largest: number) => {
    const sizes = sizesOf(largest, sharing);
    const plans = new Map<string, Promise<Planned>>();
    const pool = activationPool(device);
    try {
      await withMemoryCheck(device, async () => {
        for (const size of warm ? [...sizes].reverse() : sizes.slice(-1)) {
          const made = await make(size, pool);
          plans.set(keyOf(size), Promise.resolve(made));
        }
        if (warm) for (const made of plans.values()) submit(device, (await made).plan.encode);
        await idle(device);
      });
      return { sizes, plans, pool };
    } catch (error) {
      for (const failed of plans.values()) (await failed).plan.destroy();
      pool.destroy();
      if (!(error instanceof OutOfMemoryError) || sizes.at(-1)!.views === 1) throw error;
      return open(Math.floor(largest / 2));
    }
  };
  const { sizes, plans, pool } = await open(options.largest);
  const planned = (size: RunSize): Promise<Planned> => {
    let made = plans.get(keyOf(size));
    if (!made) {
      made = withMemoryCheck(device, () => make(size, pool));
      plans.set(keyOf(size), made);
    }
    return made;
  };
  let turn: Promise<unknown> = Promise.resolve();
  return {
    ...sizes.at(-1)!,
    bytes: pool.bytes,
    fitting: (samples, views = samples) =>
      sizes.find((size) => size.samples >= samples && size.views >= views),
    async run(size, inputs, outputs) {
      const made = planned(size);
      const mine = turn.then(() => made);
      turn = mine.catch(() => undefined);
      const { plan: chosen, staging: free } = await mine;
      if (device.isLost()) throw new DeviceLostError('the device was lost');
      const { queue } = device.gpu;
      for (const [name, values] of Object.entries(inputs)) {
        const { buffer, offset, size: bytes } = chosen.inputs.get(name)!;
        const given = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
        if (given.byteLength === bytes) {
          queue.writeBuffer(buffer, offset, given);
          continue;
        }
        // The plans share their memory: the rest of a short batch must hold valid indices too, so it is zeroed.
        const padded = new Uint8Array(bytes);
        padded.set(given);
        queue.writeBuffer(buffer, offset, padded);
      }
      const ranges = outputs.map((name) => chosen.outputs.get(name)!);
      const total = ranges.reduce((sum, range) => sum + range.size, 0);
      const staging =
        free.pop() ?? device.gpu.createBuffer({ label: 'results', size: total, usage: 0x01 | 0x08 }); // MAP_READ | COPY_DST
      const encoder = device.gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      chosen.encode(pass);
      pass.end();
      let at = 0;
      for (const { buffer, offset, size: bytes } of ranges) {
        encoder.copyBufferToBuffer(buffer, offset, staging, at, bytes);
        at += bytes;
      }
      queue.submit([encoder.finish()]);
      try {
        await waitFor(device, staging.mapAsync(1)); // GPUMapMode.READ
      } catch (cause) {
        throw new DeviceLostError('the device was lost while a batch ran', { cause });
      }
      const mapped = staging.getMappedRange().slice(0);
      staging.unmap();
      free.push(staging);
      at = 0;
      return Object.fromEntries(
        ranges.map(({ size: bytes }, i) => {
          const values = new Float32Array(mapped, at, bytes / 4);
          at += bytes;
          return [outputs[i]!, values];
        }),
      );
    },
    destroy() {
      for (const made of plans.values())
        made.then(
          ({ plan: unused, staging }) => {
            unused.destroy();
            for (const buffer of staging) buffer.destroy();
          },
          () => undefined,
        );
      pool.destroy();
    },
  };
}
