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
import type { Candidate, Crop, EvaluationBatch, Level, Model } from './model.ts';
import { type Plan, plan } from './plan.ts';
import { type ActivationPool, activationPool } from './pool.ts';
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
}

/** A level with what it does to an image and to the network's output. */
export interface NoiseLevel extends Level {
  readonly coefficients: Coefficients;
}

/** Given noises [count, c, h, w], one after the other, or a seed from which noise k is recomputed everywhere. */
export type Noise = { readonly seed: bigint } | { readonly values: Float32Array; readonly count: number };

export interface DenoiserOptions {
  readonly name: string;
  readonly crop?: Crop | undefined;
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

/** What a model keeps on a device beside its network. `destroy` frees it. */
export interface Attached {
  /** Memory of graph inputs that `predict` adds and that never change (keys and values of prompts), by name. */
  readonly tables?: Readonly<Record<string, Range>>;
  /** How an image [c, h, w] becomes what the network denoises; without it they are the same. */
  readonly encoder?: ImageEncoder;
  /** Bytes that all of it takes on the device. */
  readonly bytes?: number;
  destroy?(): void;
}

/** An encoder of images on the device. */
export interface ImageEncoder {
  readonly inputShape: readonly [channels: number, height: number, width: number];
  /** Encodes an image [c, h, w] in [-1, 1] into memory [c, h, w] of what the network denoises. */
  encode(image: Float32Array, to: Range): void;
}

/** Samples of a plan, and the distinct (slot, level, noise) among them, which share a part of the network. */
interface Size {
  readonly samples: number;
  readonly views: number;
}

/** A plan at one size with its staging memory; a short batch takes the smallest that holds it. */
interface Sized extends Size {
  readonly plan: Plan;
  readonly staging: GPUBuffer[];
}

/**
 * Every size that is planned: the largest batch and halves of it, so that a short batch is not run at full length;
 * and where samples share a part of the network, the same for as many views as samples, for a quarter and for one.
 */
function sizesOf(largest: number, sharing: boolean): Size[] {
  const counts = [largest];
  for (let size = largest / 2; size >= (sharing ? 1 : 8) && size * 16 >= largest; size /= 2)
    counts.push(Math.ceil(size));
  return counts.reverse().flatMap((samples) => {
    const views = sharing ? new Set([1, Math.ceil(samples / 4), samples]) : [samples];
    return [...views].map((count) => ({ samples, views: count }));
  });
}

/** A batch's distinct (slot, level, noise), and which of them each sample has. */
function viewsOf({ slot, level, noise }: EvaluationBatch) {
  const places = new Map<string, number>();
  const firsts: number[] = [];
  const view = slot.map((_, i) => {
    const key = `${slot[i]} ${level[i]} ${noise[i]}`;
    let place = places.get(key);
    if (place === undefined) {
      place = firsts.length;
      places.set(key, place);
      firsts.push(i);
    }
    return place;
  });
  const first = (values: Uint32Array) => Uint32Array.from(firsts, (i) => values[i]!);
  return { view, slot: first(slot), level: first(level), noise: first(noise) };
}

function constant(name: string, values: Float32Array): Constant {
  return { name, length: values.length, values: async () => values };
}

/**
 * The whole evaluation of n samples as a graph with the output `error` and an input [1, n, 1, 1] for each index:
 * `slot`, `level`, `noise` and `label`. Where the network shares a part between candidates, that part is made of
 * the inputs `viewSlot`, `viewLevel` and `viewNoise` [1, views, 1, 1], and `view` says which one a sample has.
 */
export function trace(network: Network, options: DenoiserOptions, n: number, views = n): Graph {
  const graph = newGraph();
  const [c, h, w] = network.image;
  const indices = (count: number, ...names: string[]) =>
    names.map((name) => input(graph, name, [1, count, 1, 1]));
  const [level, noise, label] = indices(n, 'level', 'noise', 'label') as [Value, Value, Value];
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
  const noised = (at: { slot: Value; level: Value; noise: Value }) =>
    apply(graph, 'mix', { noise: source, image: network.image }, { slots, ...at }, constants);

  let xt: Value;
  let shared: readonly Value[] = [];
  if (network.shared) {
    const [slot, viewLevel, viewNoise] = indices(views, 'viewSlot', 'viewLevel', 'viewNoise') as [
      Value,
      Value,
      Value,
    ];
    const [view] = indices(n, 'view') as [Value];
    const repeated = (x: Value) => apply(graph, 'pickSamples', {}, { x, index: view });
    const viewed = noised({ slot, level: viewLevel, noise: viewNoise });
    shared = network.shared(graph, viewed, viewLevel).map(repeated);
    xt = repeated(viewed);
  } else {
    const [slot] = indices(n, 'slot') as [Value];
    xt = noised({ slot, level, noise });
  }
  const prediction = network.predict(graph, { xt, level, label, shared });
  const attributes = { noise: source, distance: options.distance, channels: c };
  output(graph, 'error', apply(graph, 'errors', attributes, { prediction, xt, level, noise }, constants));
  return graph;
}

/**
 * A network as a classifier on a device. Where memory does not suffice for the batch, half of it is tried, and
 * so on; every pipeline has run once when the promise resolves.
 * @throws OutOfMemoryError where not even a batch of one fits.
 */
export async function denoiser(
  device: Device,
  network: Network,
  options: DenoiserOptions,
  { tables, encoder, bytes = 0, destroy }: Attached = {},
): Promise<Model> {
  const { gpu } = device;
  const imageLength = network.image.reduce((product, side) => product * side, 1);
  const inputShape = encoder?.inputShape ?? network.image;
  const inputLength = inputShape.reduce((product, side) => product * side, 1);
  const weights = weightStore(device);
  const slotBytes = imageLength * 4;
  const slots = createStorage(device, options.slots * slotBytes, undefined, 'slots');
  const external = { ...tables, slots: { buffer: slots, offset: 0, size: slots.size } };

  const { weightDtype } = options;
  const make = async ({ samples, views }: Size, pool: ActivationPool): Promise<Sized> => {
    const graph = trace(network, options, samples, views);
    const made = await plan(device, graph, { weights, weightDtype, external, pool });
    return { samples, views, plan: made, staging: [] };
  };
  // A network whose candidates share a part is a large one: what it does not need yet is not made, and not run.
  const large = network.shared !== undefined;
  const open = async (batchSize: number): Promise<{ pool: ActivationPool; made: Sized[] }> => {
    const made: Sized[] = [];
    const pool = activationPool(device);
    try {
      await checked(device, async () => {
        const sizes = sizesOf(batchSize, large).reverse();
        for (const size of large ? sizes.slice(0, 1) : sizes) made.push(await make(size, pool));
        if (!large) for (const { plan: warm } of made) submit(device, (pass) => warm.encode(pass));
        await idle(device);
      });
      return { pool, made };
    } catch (error) {
      for (const { plan: failed } of made) failed.destroy();
      pool.destroy();
      if (!(error instanceof OutOfMemoryError) || batchSize === 1) throw error;
      return open(Math.floor(batchSize / 2));
    }
  };
  const { pool, made: opened } = await open(options.batchSize);
  const batchSize = opened[0]!.samples;
  const sizes = sizesOf(batchSize, large);
  const plans = new Map<string, Promise<Sized>>();
  const keyOf = ({ samples, views }: Size) => `${samples} ${views}`;
  for (const made of opened) plans.set(keyOf(made), Promise.resolve(made));
  const planned = (size: Size): Promise<Sized> => {
    let made = plans.get(keyOf(size));
    if (!made) {
      made = checked(device, () => make(size, pool));
      plans.set(keyOf(size), made);
    }
    return made;
  };

  /** The smallest size that holds a batch, and its indices by the names of a plan's inputs. */
  const place = (batch: EvaluationBatch) => {
    const { slot, candidate, level, noise } = batch;
    const label = candidate.map((index) => options.labels[index]!);
    const shared = network.shared && viewsOf(batch);
    const distinct = shared?.slot.length ?? 0;
    const size = sizes.find(({ samples, views }) => samples >= slot.length && views >= distinct);
    if (!size) throw new RangeError(`a batch of ${slot.length} evaluations, at most ${batchSize} fit`);
    const indices: Record<string, Uint32Array> = shared
      ? {
          viewSlot: shared.slot,
          viewLevel: shared.level,
          viewNoise: shared.noise,
          view: shared.view,
          level,
          noise,
          label,
        }
      : { slot, level, noise, label };
    return { size, indices };
  };
  let closed = false;
  return {
    name: options.name,
    inputShape,
    crop: options.crop,
    candidates: options.candidates,
    levels: options.levels,
    temperature: options.temperature,
    kappa: options.kappa,
    batchSize,
    slots: options.slots,
    get deviceBytes() {
      return weights.bytes() + pool.bytes() + slots.size + bytes;
    },
    encode(slot, image) {
      if (image.length !== inputLength)
        throw new RangeError(`an image has ${image.length} values, the model takes ${inputLength}`);
      const to = { buffer: slots, offset: slot * slotBytes, size: slotBytes };
      if (encoder) encoder.encode(image, to);
      else gpu.queue.writeBuffer(slots, to.offset, image as Float32Array<ArrayBuffer>);
    },
    async errors(batch) {
      const count = batch.slot.length;
      const { size, indices } = place(batch);
      const chosen = await planned(size);
      if (device.isLost()) throw new DeviceLostError('the device was lost');
      for (const [name, values] of Object.entries(indices)) {
        const { buffer, offset } = chosen.plan.inputs.get(name)!;
        // The plans share their memory: what a short batch leaves over must be an index too.
        const padded = new Uint32Array(
          name.startsWith('view') && name !== 'view' ? chosen.views : chosen.samples,
        );
        padded.set(values);
        gpu.queue.writeBuffer(buffer, offset, padded);
      }
      const error = chosen.plan.outputs.get('error')!;
      const staging =
        chosen.staging.pop() ??
        gpu.createBuffer({ label: 'errors', size: chosen.samples * 4, usage: 0x01 | 0x08 }); // MAP_READ | COPY_DST
      const encoder = gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      chosen.plan.encode(pass);
      pass.end();
      encoder.copyBufferToBuffer(error.buffer, error.offset, staging, 0, chosen.samples * 4);
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
      for (const made of plans.values())
        made.then(
          ({ plan: unused, staging }) => {
            unused.destroy();
            for (const buffer of staging) buffer.destroy();
          },
          () => undefined,
        );
      pool.destroy();
      weights.destroy();
      slots.destroy();
      destroy?.();
      device.close();
    },
  };
}
