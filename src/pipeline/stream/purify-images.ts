// Purifies streams of images: every image goes through its own chain of steps, and their requests fill common batches.

import { faultOf } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import type { AbortSignalLike } from '../../host-types.ts';
import { product } from '../../numbers.ts';
import { distance } from '../norms.ts';
import type { Denoising, PurificationStep, State } from '../purifying/chain.ts';
import { checkPurifying, type PurifyingOptions, purificationSteps } from '../purifying/methods.ts';
import { givenNoise, seededNoise } from '../purifying/noise.ts';
import {
  type ImageItem,
  type ItemFailure,
  isFailure,
  madeBy,
  type Progress,
  progressAfter,
} from '../types.ts';
import type { Batcher, OpenModel } from './batcher.ts';
import { denoisingBy, imagesInFlight } from './denoising.ts';
import { derivativesOf } from './jobs.ts';
import { concurrently, stoppable } from './pull.ts';
import { owning } from './sharing.ts';

/** How to purify; everything but the method has a default. */
export interface PurifyOptions extends PurifyingOptions {
  /**
   * Noises [n, c, h, w] instead of those of the seed: step i takes noise i. The model must be opened with the same
   * noises.
   */
  readonly noise?: Float32Array | undefined;
  /** Number of images in flight. Default: as many as keep the model's batches full. */
  readonly concurrency?: number | undefined;
  /** Called after every image. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Stops at once: images that are ready are still yielded, then the stream rejects with the signal's reason. */
  readonly signal?: AbortSignalLike | undefined;
  /** A clock in milliseconds. Default: `Date.now`. */
  readonly now?: (() => number) | undefined;
}

/** How an image was purified. */
export interface Purification {
  /** Distances between the image before and after, for pixels in [0, 1]. */
  readonly linf: number;
  readonly l2: number;
  /** Number of evaluations of the network; a gradient counts as one. */
  readonly evaluations: number;
  /** Seconds from its first step to its last. */
  readonly seconds: number;
  readonly model: string;
  /** The adapter that the model ran on. */
  readonly device?: string;
}

/** An item with its pixels purified. */
export type Purified<Item extends ImageItem = ImageItem> = Item & { readonly purification: Purification };

/**
 * Purifies a stream of images with bounded memory: an item is pulled only if fewer than `concurrency` images are in
 * flight and all purified ones were taken. Images are yielded as they are ready, in any order. Failures pass through; an
 * image that cannot be purified becomes one. The result depends on the image's pixels and the options only, not on the
 * batch, the concurrency or other images.
 *
 * @param source images with `pixels` [c, h, w] in [-1, 1], and failures.
 * @param openModel opens a model with `unconditional`, `distance: 'l2'`, and `purificationLevels(options)` as its levels,
 *   again after a lost device. It is called when the first image is pulled. The model is closed at the end, on an error,
 *   on `signal` and on `return()`.
 * @param options the method and its settings.
 * @throws UsageError for invalid options, UnsupportedError for a model without gradients.
 *
 * @example
 * import { findImages, loadImages, openModel, purificationLevels, purifyImages } from 'diffclass-stream';
 *
 * const options = { method: 'lm-momentum', eps: 8 / 255 } as const;
 * const levels = purificationLevels(options);
 * const images = loadImages(findImages(['photos']), [3, 32, 32]);
 * const open = () => openModel('cifar-10', { unconditional: true, distance: 'l2', levels });
 * for await (const image of purifyImages(images, open, options)) console.log(image.path);
 */
export const purifyImages = <Item extends ImageItem>(
  source: AsyncIterable<Item | ItemFailure>,
  openModel: OpenModel,
  options: PurifyOptions,
): AsyncIterableIterator<Purified<Item> | ItemFailure, undefined> =>
  stoppable(async function* (signal) {
    signal.throwIfAborted();
    checkPurifying(options);
    return yield* owning(openModel, signal, (batcher) => run(source, batcher, options, signal));
  }, options.signal);

async function* run<Item extends ImageItem>(
  source: AsyncIterable<Item | ItemFailure>,
  batcher: Batcher,
  options: PurifyOptions,
  signal: AbortSignalLike,
): AsyncGenerator<Purified<Item> | ItemFailure, undefined> {
  const { now = Date.now, onProgress } = options;
  const began = now();
  const counts = { images: 0, failures: 0, evaluations: 0 };
  const report = (result: Purified<Item> | ItemFailure): void => {
    counts.images++;
    if (isFailure(result)) counts.failures++;
    else counts.evaluations += result.purification.evaluations;
    onProgress?.(progressAfter((now() - began) / 1000, { ...counts }));
  };
  const steps = stepsBy(batcher.model, options);
  const limit = Math.max(1, options.concurrency ?? imagesInFlight(batcher));
  const by = { denoising: denoisingBy(batcher, signal), steps, now, model: batcher.model };
  const task = async (item: Item | ItemFailure): Promise<Purified<Item> | ItemFailure> => {
    const result = isFailure(item) ? item : await purifyImage(item, by);
    report(result);
    return result;
  };
  yield* concurrently(source, task, limit, signal);
}

/**
 * Returns the steps of a purification with a model, which are the same for every image. Throws `UsageError`,
 * `UnsupportedError` or `ModelError` if model, options and noise do not fit together.
 */
export function stepsBy(
  model: Model,
  options: PurifyingOptions & { readonly noise?: Float32Array | undefined },
): PurificationStep[] {
  const { name, inputShape } = model;
  const { mixes } = derivativesOf(model);
  const length = product(inputShape);
  const noise = options.noise ? givenNoise(options.noise, length) : seededNoise(options.seed ?? 0, length);
  return purificationSteps(options, { name, mixes, noise });
}

/** What all images of a stream are purified by. */
interface Purifying {
  readonly denoising: Denoising;
  readonly steps: readonly PurificationStep[];
  readonly now: () => number;
  readonly model: Model;
}

/** Runs one image through the steps. Returns a failure for a fault of the image; rejects on faults of the device. */
async function purifyImage<Item extends ImageItem>(
  item: Item,
  { denoising, steps, now, model }: Purifying,
): Promise<Purified<Item> | ItemFailure> {
  const started = now();
  let evaluations = 0;
  const counted: Denoising = {
    lossGradient: (...args) => {
      evaluations++;
      return denoising.lossGradient(...args);
    },
    predict: (...args) => {
      evaluations++;
      return denoising.predict(...args);
    },
    pullBack: denoising.pullBack,
  };
  try {
    let state: State = { x: item.pixels };
    for (const step of steps) state = await step.forward(counted, state);
    const purification = {
      linf: distance('linf', state.x, item.pixels) / 2,
      l2: distance('l2', state.x, item.pixels) / 2,
      evaluations,
      seconds: (now() - started) / 1000,
      ...madeBy(model),
    };
    return { ...item, pixels: state.x, purification };
  } catch (error) {
    return { path: item.path, error: faultOf(error) };
  }
}
