// A graph at several batch sizes, ready to run: plans that share their memory, made when first wanted, and the way of a
// run's numbers to the device and back.

import { DeviceLostError, OutOfMemoryError } from '../../errors.ts';
import type { Device } from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import { checked, idle, type Range, submit } from '../../kernels/device/runtime.ts';
import { parked } from '../../kernels/device/wait.ts';
import type { Graph } from './graph.ts';
import { type Plan, plan } from './plan.ts';
import { type ActivationPool, activationPool } from './pool.ts';
import type { WeightStore } from './weight-store.ts';

/** Samples of a plan, and the distinct (slot, level, noise) among them, which share a part of the network. */
export interface Size {
  readonly samples: number;
  readonly views: number;
}

export interface RunnerOptions {
  readonly weights: WeightStore;
  readonly weightDtype: WeightDtype;
  /** Memory of inputs that the caller keeps. */
  readonly external: Readonly<Record<string, Range>>;
  readonly trace: (size: Size) => Graph;
  /** Most samples of a run; halved, and halved again, where memory does not suffice. */
  readonly largest: number;
  /**
   * Samples share a part of the network, so that plans differ in their views too; a number where they share all of it,
   * so that views are what costs: most samples of a view.
   */
  readonly sharing?: boolean | number;
  /** Makes every size at once and runs it, so that no batch waits for a compiler. */
  readonly warm?: boolean;
}

export interface Runner {
  /** Most samples of a run, and most views. */
  readonly samples: number;
  readonly views: number;
  readonly bytes: () => number;
  /** The smallest size that holds so many samples and views; undefined where none does. */
  fitting(samples: number, views?: number): Size | undefined;
  /**
   * Runs a size on inputs by name, zeros where they are short of the size, and gives the storage of outputs by name.
   * Runs may overlap; they happen, and come back, in the order of the calls. Rejects with `DeviceLostError` when the
   * device goes away.
   */
  run(
    size: Size,
    inputs: Readonly<Record<string, ArrayBufferView>>,
    outputs: readonly string[],
  ): Promise<Record<string, Float32Array<ArrayBuffer>>>;
  destroy(): void;
}

/** A plan with its staging memory, a buffer a run on its way. */
interface Planned {
  readonly plan: Plan;
  readonly staging: GPUBuffer[];
}

/**
 * Every size that is planned: the largest batch and halves of it, so that a short batch is not run at full length;
 * and where samples share a part of the network, the same for as many views as samples, for a quarter and for one.
 */
function sizesOf(largest: number, sharing: boolean | number): Size[] {
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

const keyOf = ({ samples, views }: Size) => `${samples} ${views}`;

/**
 * The runner of a graph, its largest size ready.
 * @throws OutOfMemoryError where not even a batch of one fits.
 */
export async function openRunner(device: Device, options: RunnerOptions): Promise<Runner> {
  const { weights, weightDtype, external, trace, sharing = false, warm = false } = options;
  const make = async (size: Size, pool: ActivationPool): Promise<Planned> => ({
    plan: await plan(device, trace(size), { weights, weightDtype, external, pool }),
    staging: [],
  });
  const open = async (largest: number) => {
    const sizes = sizesOf(largest, sharing);
    const plans = new Map<string, Promise<Planned>>();
    const pool = activationPool(device);
    try {
      await checked(device, async () => {
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
  const planned = (size: Size): Promise<Planned> => {
    let made = plans.get(keyOf(size));
    if (!made) {
      made = checked(device, () => make(size, pool));
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
        // The plans share their memory: what a short batch leaves over must be an index too.
        const padded = new Uint8Array(bytes);
        padded.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
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
        await parked(staging.mapAsync(1)); // GPUMapMode.READ
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
