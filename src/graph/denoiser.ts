// The evaluation itself: images in slots are noised, the network predicts, the distance is reduced, and one
// number a sample comes back. Around any network that can be traced; it knows nothing of folders.

import type { Device } from '../kernels/device.ts';
import type { Distance } from '../kernels/error-reduction.ts';
import { DeviceLostError, OutOfMemoryError } from '../kernels/errors.ts';
import type { NoiseSource } from '../kernels/mix.ts';
import type { WeightDtype } from '../kernels/routine.ts';
import { checked, createStorage, idle, type Range, submit } from '../kernels/runtime.ts';
import { parked } from '../kernels/wait.ts';
import type { Coefficients } from './files/schedule.ts';
import { apply, type Constant, type Graph, input, newGraph, output, type Value } from './graph.ts';
import type { Candidate, EvaluationBatch, Level, Model } from './model.ts';
import { type Plan, plan } from './plan.ts';
import { weightStore } from './weightstore.ts';

/** What a network's part that depends on the candidate is given, n samples each. */
export interface SampleInputs {
  /** x_t [c, n, h, w]. */
  readonly xt: Value;
  /** Index of the level, and of the candidate's class or prompt: [1, n, 1, 1]. */
  readonly level: Value;
  readonly label: Value;
  /** What `shared` made, repeated to the samples it belongs to. */
  readonly shared: readonly Value[];
}

/** A network that predicts from a noised image, a level and a class or prompt, as a part of any graph. */
export interface Network {
  /** What it denoises, an image or its latent: [channels, height, width]. */
  readonly image: readonly [channels: number, height: number, width: number];
  /** The part that no candidate has a say in: made once a distinct (image, level, noise), for all its candidates. */
  readonly shared?: (graph: Graph, xt: Value, level: Value) => readonly Value[];
  /** The rest of the network: a prediction [at least c channels, n, h, w]. */
  readonly predict: (graph: Graph, inputs: SampleInputs) => Value;
  /** Memory of graph inputs that `predict` adds and that never change (keys and values of prompts), by name. */
  readonly tables?: Readonly<Record<string, Range>>;
}

/** A level with what it does to an image and to the network's output. */
export interface NoiseLevel extends Level {
  readonly coefficients: Coefficients;
}

/** Given noises [count, c, h, w], one after the other, or a seed from which noise k is recomputed everywhere. */
export type Noise = { readonly seed: bigint } | { readonly values: Float32Array; readonly count: number };

export interface DenoiserOptions {
  readonly name: string;
  readonly candidates: readonly Candidate[];
  /** The network's class of each candidate. */
  readonly labels: readonly number[];
  readonly levels: readonly NoiseLevel[];
  readonly temperature: number;
  readonly kappa?: number | undefined;
  readonly noise: Noise;
  readonly distance: Distance;
  readonly weightDtype: WeightDtype;
  readonly batchSize: number;
  readonly slots: number;
}

/** A plan at one batch size with its staging memory; a short batch takes the smallest that holds it. */
interface Sized {
  readonly size: number;
  readonly plan: Plan;
  readonly staging: GPUBuffer[];
}

/** Every batch size that is planned: the largest and halves of it, so that a short batch is not run at full length. */
function batchSizes(largest: number): number[] {
  const sizes = [largest];
  for (let size = largest / 2; size >= 8 && size * 16 >= largest; size /= 2) sizes.push(Math.ceil(size));
  return sizes.reverse();
}

const INDICES = ['slot', 'level', 'noise', 'label'] as const;

function constant(name: string, values: Float32Array): Constant {
  return { name, length: values.length, values: async () => values };
}

/** The whole evaluation of n samples as a graph with the output `error`. */
export function trace(network: Network, options: DenoiserOptions, n: number): Graph {
  const graph = newGraph();
  const [c, h, w] = network.image;
  const index = Object.fromEntries(INDICES.map((name) => [name, input(graph, name, [1, n, 1, 1])]));
  const { slot, level, noise, label } = index as Record<(typeof INDICES)[number], Value>;
  const slots = input(graph, 'slots', [1, options.slots, 1, c * h * w]);
  const rows = options.levels.flatMap(({ coefficients: { a, b, alpha, beta } }) => [a, b, alpha, beta]);
  const given = 'values' in options.noise ? options.noise : undefined;
  const source: NoiseSource = given
    ? { kind: 'table', count: given.count }
    : { kind: 'philox', seed: (options.noise as { seed: bigint }).seed };
  const constants = {
    levels: constant('levels', Float32Array.from(rows)),
    noises: given && constant('noises', given.values),
  };
  const xt = apply(
    graph,
    'mix',
    { noise: source, image: network.image },
    { slots, slot, level, noise },
    constants,
  );
  const shared = network.shared?.(graph, xt, level) ?? [];
  const prediction = network.predict(graph, { xt, level, label, shared });
  const attributes = { noise: source, distance: options.distance, channels: c };
  output(graph, 'error', apply(graph, 'errors', attributes, { prediction, xt, level, noise }, constants));
  return graph;
}

async function makeSized(
  device: Device,
  network: Network,
  options: DenoiserOptions,
  external: Readonly<Record<string, Range>>,
  weights: ReturnType<typeof weightStore>,
  size: number,
): Promise<Sized> {
  const graph = trace(network, options, size);
  const made = await plan(device, graph, { weights, weightDtype: options.weightDtype, external });
  return { size, plan: made, staging: [] };
}

/**
 * A network as a classifier on a device. Where memory does not suffice for the batch, half of it is tried, and
 * so on; every pipeline has run once when the promise resolves.
 * @throws OutOfMemoryError where not even a batch of one fits.
 */
export async function denoiser(device: Device, network: Network, options: DenoiserOptions): Promise<Model> {
  const imageLength = network.image.reduce((product, side) => product * side, 1);
  const weights = weightStore(device);
  const slotBytes = imageLength * 4;
  const slots = createStorage(device, options.slots * slotBytes, undefined, 'slots');
  const external = { ...network.tables, slots: { buffer: slots, offset: 0, size: slots.size } };

  const open = async (batchSize: number): Promise<Sized[]> => {
    const made: Sized[] = [];
    try {
      return await checked(device, async () => {
        for (const size of batchSizes(batchSize))
          made.push(await makeSized(device, network, options, external, weights, size));
        for (const { plan: warm } of made) submit(device, (pass) => warm.encode(pass));
        await idle(device);
        return made;
      });
    } catch (error) {
      for (const { plan: failed } of made) failed.destroy();
      if (!(error instanceof OutOfMemoryError) || batchSize === 1) throw error;
      return open(Math.floor(batchSize / 2));
    }
  };
  const sized = await open(options.batchSize);
  const batchSize = sized.at(-1)!.size;

  const indicesOf = (batch: EvaluationBatch) => ({
    slot: batch.slot,
    level: batch.level,
    noise: batch.noise,
    label: batch.candidate.map((candidate) => options.labels[candidate]!),
  });
  let closed = false;
  return {
    name: options.name,
    inputShape: network.image,
    candidates: options.candidates,
    levels: options.levels,
    temperature: options.temperature,
    kappa: options.kappa,
    batchSize,
    slots: options.slots,
    encode(slot, image) {
      if (image.length !== imageLength)
        throw new RangeError(`an image has ${image.length} values, the model takes ${imageLength}`);
      device.gpu.queue.writeBuffer(slots, slot * slotBytes, image as Float32Array<ArrayBuffer>);
    },
    async errors(batch) {
      const count = batch.slot.length;
      const chosen = sized.find(({ size }) => size >= count);
      if (!chosen) throw new RangeError(`a batch of ${count} evaluations, at most ${batchSize} fit`);
      if (device.isLost()) throw new DeviceLostError('the device was lost');
      const { gpu } = device;
      for (const [name, values] of Object.entries(indicesOf(batch))) {
        const { buffer, offset } = chosen.plan.inputs.get(name)!;
        gpu.queue.writeBuffer(buffer, offset, values as Uint32Array<ArrayBuffer>);
      }
      const error = chosen.plan.outputs.get('error')!;
      const staging =
        chosen.staging.pop() ??
        gpu.createBuffer({ label: 'errors', size: chosen.size * 4, usage: 0x01 | 0x08 }); // MAP_READ | COPY_DST
      const encoder = gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      chosen.plan.encode(pass);
      pass.end();
      encoder.copyBufferToBuffer(error.buffer, error.offset, staging, 0, chosen.size * 4);
      gpu.queue.submit([encoder.finish()]);
      try {
        await parked(staging.mapAsync(1)); // GPUMapMode.READ
      } catch (cause) {
        throw new DeviceLostError('the device was lost while a batch ran', { cause });
      }
      const errors = new Float32Array(staging.getMappedRange().slice(0, count * 4));
      staging.unmap();
      chosen.staging.push(staging);
      return errors;
    },
    close() {
      if (closed) return;
      closed = true;
      for (const { plan: made, staging } of sized) {
        made.destroy();
        for (const buffer of staging) buffer.destroy();
      }
      weights.destroy();
      slots.destroy();
      device.close();
    },
  };
}
