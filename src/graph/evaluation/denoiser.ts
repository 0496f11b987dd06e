// A network as a classifier on a device: images in slots, batches of evaluations in, one number each back.

import type { Device } from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import { createStorage, type Range } from '../../kernels/device/runtime.ts';
import { openRunner } from '../core/runner.ts';
import { weightStore } from '../core/weight-store.ts';
import type { Candidate, Crop, EvaluationBatch, Familiar, Model } from '../model.ts';
import { differentiable } from './differentiable.ts';
import { type EvaluationOptions, type Network, noiseKeysOf, trace } from './evaluation.ts';
import { splitByViews, viewsOf } from './views.ts';

export interface DenoiserOptions extends EvaluationOptions {
  readonly name: string;
  readonly crop?: Crop | undefined;
  readonly candidates: readonly Candidate[];
  /** The network's class of each candidate. */
  readonly labels: readonly number[];
  readonly temperature: number;
  readonly kappa?: number | undefined;
  readonly familiar?: Familiar | undefined;
  readonly weightDtype: WeightDtype;
  readonly batchSize: number;
  /** Bytes for the activations of a gradient's run: see `GradientOptions.bytes`. */
  readonly gradientBytes?: number | undefined;
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

/** Views of a gradient's run where all candidates come from one: enough to fill a device. */
const GRADIENT_VIEWS = 32;

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

  const { weightDtype, batchSize } = options;
  const keys = noiseKeysOf(options.noise);
  // A network whose candidates share a part is a large one: what it does not need yet is not made, and not run. Where
  // they share all of it, a view is what costs, and all candidates of one come together.
  const large = network.shared !== undefined && !network.take;
  const perView = network.take && options.candidates.length;
  const runner = await openRunner(device, {
    weights,
    weightDtype,
    external,
    trace: ({ samples, views }) => trace(network, options, samples, views),
    largest: batchSize,
    sharing: perView ?? large,
    warm: !large,
  });
  // Where a view is what costs, it is images that gradients are taken of at once, not all their candidates.
  const derivedBatch = network.take ? Math.min(batchSize, GRADIENT_VIEWS) : runner.views;
  const derivatives = encoder
    ? undefined
    : differentiable(device, network, { ...options, weights, external, batchSize: derivedBatch });

  /** The smallest size that holds a batch, and its indices by the names of a plan's inputs. */
  const place = (batch: EvaluationBatch) => {
    const { slot, candidate, level } = batch;
    const label = Uint32Array.from(candidate, (index) => options.labels[index]!);
    const shared = network.shared && viewsOf(batch);
    const size = runner.fitting(slot.length, shared?.slot.length)!;
    const own = { level, noise: keys(batch), label };
    const indices = shared
      ? {
          ...own,
          viewSlot: shared.slot,
          viewLevel: shared.level,
          viewNoise: keys(shared),
          view: shared.view,
        }
      : { ...own, slot };
    return { size, indices };
  };
  let closed = false;
  return {
    name: options.name,
    device: device.name,
    inputShape,
    crop: options.crop,
    candidates: options.candidates,
    levels: options.levels,
    temperature: options.temperature,
    kappa: options.kappa,
    seed: 'seed' in options.noise ? options.noise.seed : undefined,
    noisePairing: 'seed' in options.noise ? 'level' : 'visit',
    familiar: options.familiar,
    batchSize: runner.samples,
    slots: options.slots,
    get deviceBytes() {
      return weights.bytes() + runner.bytes() + (derivatives?.bytes() ?? 0) + slots.size + bytes;
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
      if (count > runner.samples)
        throw new RangeError(`a batch of ${count} evaluations, at most ${runner.samples} fit`);
      const errors = new Float32Array(count);
      let at = 0;
      const runs = (network.take ? splitByViews(batch, runner.views) : [batch]).map(async (part) => {
        const from = at;
        at += part.slot.length;
        const { size, indices } = place(part);
        const { error } = await runner.run(size, indices, ['error']);
        errors.set(error!.subarray(0, part.slot.length), from);
      });
      await Promise.all(runs);
      return errors;
    },
    differentiable: derivatives,
    close() {
      if (closed) return;
      closed = true;
      runner.destroy();
      derivatives?.destroy();
      weights.destroy();
      slots.destroy();
      destroy?.();
      device.close();
    },
  };
}
