// Runs a network as a classifier on a device: images are in slots, and each evaluation of a batch returns one number.

import type { Device } from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import { createStorage, type Range } from '../../kernels/device/runtime.ts';
import type { Stored } from '../../kernels/device/storage.ts';
import { product } from '../../numbers.ts';
import { openRunner } from '../core/runner.ts';
import { weightStore } from '../core/weight-store.ts';
import type { Candidate, Crop, EvaluationBatch, Familiar, Model } from '../model.ts';
import { differentiable } from './differentiable.ts';
import { type EvaluationOptions, type Network, noiseKeysOf, trace } from './evaluation.ts';
import { splitByViews, viewsOf } from './views.ts';

/** A network's classes and how to evaluate it on a device. */
export interface DenoiserOptions extends EvaluationOptions {
  readonly name: string;
  /** See `Model.overlays`. */
  readonly overlays?: Model['overlays'];
  readonly crop?: Crop | undefined;
  readonly candidates: readonly Candidate[];
  /** The network's class of each candidate. */
  readonly labels: readonly number[];
  readonly temperature: number;
  readonly kappa?: number | undefined;
  readonly familiar?: Familiar | undefined;
  readonly weightDtype: WeightDtype;
  /** How forward passes store activations; gradients store f32. f16 needs a device with `shader-f16`. Default: f32. */
  readonly precision?: Stored | undefined;
  readonly batchSize: number;
  /** Bytes for the activations of a batch of gradients; see `DifferentiableOptions.gradientBytes`. */
  readonly gradientBytes?: number | undefined;
}

/** What a model keeps on a device in addition to its network. `destroy` frees it. */
export interface Attached {
  /** Memory of constant graph inputs that `Network.predict` adds (keys and values of prompts), by name. */
  readonly tables?: Readonly<Record<string, Range>>;
  /** Encodes images into what the network denoises. Default: the network denoises images. */
  readonly encoder?: ImageEncoder;
  /** Bytes that all of this takes on the device. */
  readonly bytes?: number;
  destroy?(): void;
}

/** An encoder of images on the device. */
export interface ImageEncoder {
  readonly inputShape: readonly [channels: number, height: number, width: number];
  /** Encodes an image [c, h, w] in [-1, 1], and writes the latent [c, h, w] to memory on the device. */
  encode(image: Float32Array, to: Range): void;
}

/** Views per batch of gradients if one forward pass predicts for all candidates: enough to fill a device. */
const GRADIENT_VIEWS = 32;

/**
 * Makes a model of a network on a device. If memory does not suffice for the batch, half of it is tried, and so on. Every
 * pipeline has run once when the promise resolves, except those of networks that share a part between candidates.
 *
 * @throws OutOfMemoryError if not even a batch of one fits.
 */
export async function denoiser(
  device: Device,
  network: Network,
  options: DenoiserOptions,
  { tables, encoder, bytes = 0, destroy }: Attached = {},
): Promise<Model> {
  const { gpu } = device;
  const imageLength = product(network.image);
  const inputShape = encoder?.inputShape ?? network.image;
  const inputLength = product(inputShape);
  const weights = weightStore(device);
  const slotBytes = imageLength * 4;
  const slots = createStorage(device, options.slots * slotBytes, undefined, 'slots');
  const { imageRow } = network;
  const imageRows =
    imageRow && createStorage(device, options.slots * imageRow.length * 4, undefined, 'imageRows');
  const whole = (buffer: GPUBuffer): Range => ({ buffer, offset: 0, size: buffer.size });
  const external = {
    ...tables,
    slots: whole(slots),
    ...(imageRows && { imageRows: whole(imageRows) }),
  };

  const { weightDtype, precision = 'f32', batchSize } = options;
  const keys = noiseKeysOf(options.noise);
  // Networks with a shared part are large: plans are not created and run before they are needed. If candidates share the
  // whole network, a batch costs as much as its views do, and it holds all candidates of each view.
  const large = network.shared !== undefined && !network.take;
  const perView = network.take && options.candidates.length;
  const runner = await openRunner(device, {
    weights,
    weightDtype,
    precision,
    external,
    trace: ({ samples, views }) => trace(network, options, samples, views),
    largest: batchSize,
    sharing: perView ?? large,
    warm: !large,
  });
  // For such a network, a batch of gradients is counted in views too, not in candidates.
  const derivedBatch = network.take ? Math.min(batchSize, GRADIENT_VIEWS) : runner.views;
  const derivatives = encoder
    ? undefined
    : differentiable(device, network, { ...options, weights, external, batchSize: derivedBatch });

  /** Returns the smallest planned size that a batch fits in, and its indices by the names of the plan's inputs. */
  const inputsOf = (batch: EvaluationBatch) => {
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
    overlays: options.overlays,
    device: device.name,
    precision,
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
      const own = slots.size + (imageRows?.size ?? 0) + bytes;
      return weights.bytes() + runner.bytes() + (derivatives?.bytes() ?? 0) + own;
    },
    encode(slot, image, geometry) {
      if (image.length !== inputLength)
        throw new RangeError(`encode: expected an image of ${inputLength} values, got ${image.length}`);
      const to = { buffer: slots, offset: slot * slotBytes, size: slotBytes };
      if (encoder) encoder.encode(image, to);
      else gpu.queue.writeBuffer(slots, to.offset, image as Float32Array<ArrayBuffer>);
      if (imageRow && imageRows)
        gpu.queue.writeBuffer(imageRows, slot * imageRow.length * 4, imageRow.of(geometry));
    },
    async errors(batch) {
      const count = batch.slot.length;
      if (count > runner.samples)
        throw new RangeError(`errors: expected at most ${runner.samples} evaluations, got ${count}`);
      const errors = new Float32Array(count);
      let at = 0;
      const runs = (network.take ? splitByViews(batch, runner.views) : [batch]).map(async (part) => {
        const from = at;
        at += part.slot.length;
        const { size, indices } = inputsOf(part);
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
      imageRows?.destroy();
      destroy?.();
      device.close();
    },
  };
}
