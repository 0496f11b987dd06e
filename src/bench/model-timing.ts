// What one evaluation of a model costs on a device, where the time goes, and how much of it the device is idle.

import { costOf } from '../graph/core/cost.ts';
import { plan } from '../graph/core/plan.ts';
import { openRunner, type RunSize } from '../graph/core/runner.ts';
import { weightStore } from '../graph/core/weight-store.ts';
import { trace } from '../graph/evaluation/evaluation.ts';
import type { LoadedModel } from '../graph/models/open-model.ts';
import type { Device } from '../kernels/device/device.ts';
import { createStorage, prepare } from '../kernels/device/runtime.ts';
import { columns } from '../kernels/device/tensor.ts';
import { isDisturbed, type Timing, time, timeEncoded } from '../kernels/device/time.ts';
import { type Occupancy, occupancyOf, recordPasses } from '../kernels/device/timestamps.ts';
import { product } from '../numbers.ts';

export interface ModelTiming {
  /** The network at the batch size: one pass with all launches. */
  readonly network: Timing & { readonly disturbed: boolean };
  /** Floating-point operations of a batch. */
  readonly flops: number;
  /** The launches of a batch in their order, with the median time of each alone. */
  readonly launches: readonly { readonly name: string; readonly ms: number }[];
  /** A stream of batches as the product runs them: inputs are written, errors read back, two batches are in flight. */
  readonly stream: {
    readonly batches: number;
    /** Milliseconds per batch by the host's clock. */
    readonly batchMs: number;
    /** When the device was busy, by its timestamps; undefined if it has none. */
    readonly occupancy: Occupancy | undefined;
  };
  readonly activationBytes: number;
  readonly weightBytes: number;
}

/** Batches in flight at a time, as in the batcher of the pipeline. */
const DEPTH = 2;

/** The fewest batches of a stream, and how many milliseconds it should last. */
const LEAST_BATCHES = 6;
const STREAM_MS = 1000;

/**
 * Returns the samples of a batch with `views` noised images: if one run of the network predicts for all candidates, each
 * view has a sample per candidate.
 */
const sizeOf = ({ network, evaluation }: LoadedModel, views: number): RunSize => ({
  views,
  samples: network.take ? views * evaluation.candidates.length : views,
});

/** Returns index arrays for the inputs of a batch, all of them valid. */
function inputsOf({ network, evaluation }: LoadedModel, { samples, views }: RunSize) {
  const { inputs } = trace(network, evaluation, samples, views);
  const limits: Readonly<Record<string, number>> = {
    slot: evaluation.slots,
    viewSlot: evaluation.slots,
    level: evaluation.levels.length,
    viewLevel: evaluation.levels.length,
    label: evaluation.candidates.length,
    view: views,
  };
  return Object.fromEntries(
    [...inputs]
      .filter(([name]) => name !== 'slots')
      .map(([name, { shape }]) => {
        const length = columns(shape);
        return [name, Uint32Array.from({ length }, (_, i) => i % (limits[name] ?? length))];
      }),
  );
}

/** Times a model's network with `views` noised images per batch. The caller closes the model. */
export async function timeModel(
  device: Device,
  model: LoadedModel,
  { views, repetitions }: { readonly views: number; readonly repetitions: number },
): Promise<ModelTiming> {
  const { network, evaluation } = model;
  const { weightDtype, precision } = evaluation;
  const slots = createStorage(device, 4 * evaluation.slots * product(network.image));
  const weights = weightStore(device);
  const external = { slots: { buffer: slots, offset: 0, size: slots.size } };
  const size = sizeOf(model, views);
  const traced = ({ samples, views: count }: RunSize) => trace(network, evaluation, samples, count);
  try {
    const graph = traced(size);
    const made = await plan(device, graph, { weights, weightDtype, precision, external });
    try {
      const timing = await time(device, made.launches, repetitions);
      const sequence = await prepare(device, made.launches);
      const launches: { name: string; ms: number }[] = [];
      try {
        for (const [i, { kernel }] of made.launches.entries()) {
          const encode = (pass: GPUComputePassEncoder) => sequence.encode(pass, i, i + 1);
          const { ms } = await timeEncoded(device, encode, 1, { repetitions, repetitionMs: 12 });
          launches.push({ name: kernel.name, ms });
        }
      } finally {
        sequence.destroy();
      }
      const options = { weights, weightDtype, precision, external, trace: traced, largest: size.samples };
      const runner = await openRunner(device, {
        ...options,
        ...(network.take ? { sharing: evaluation.candidates.length } : {}),
      });
      try {
        return {
          network: { ...timing, disturbed: isDisturbed(timing) },
          flops: costOf(graph).flop,
          launches,
          stream: await timeStream(device, runner, size, inputsOf(model, size), timing.wallMs),
          activationBytes: made.bytes,
          weightBytes: weights.bytes(),
        };
      } finally {
        runner.destroy();
      }
    } finally {
      made.destroy();
    }
  } finally {
    weights.destroy();
    slots.destroy();
  }
}

/** Runs batches one after the other, `DEPTH` at a time, and records when the device is busy. */
async function timeStream(
  device: Device,
  runner: Awaited<ReturnType<typeof openRunner>>,
  size: RunSize,
  inputs: Readonly<Record<string, Uint32Array<ArrayBuffer>>>,
  batchMs: number,
): Promise<ModelTiming['stream']> {
  const batches = Math.max(LEAST_BATCHES, Math.min(1000, Math.ceil(STREAM_MS / batchMs)));
  const run = () => runner.run(size, inputs, ['error']);
  await run();
  const recorder = device.capabilities.timestamps ? recordPasses(device) : undefined;
  let left = batches;
  const user = async (): Promise<void> => {
    while (left-- > 0) await run();
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: DEPTH }, user));
  const elapsed = performance.now() - start;
  const passes = await recorder?.end();
  return { batches, batchMs: elapsed / batches, occupancy: passes && occupancyOf(passes) };
}
