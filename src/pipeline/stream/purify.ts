// Images in, purified images out: every image walks its own chain of steps, and what they ask fills common batches.

import { faultOf } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import type { AbortSignalLike } from '../../host-types.ts';
import { distance } from '../norms.ts';
import type { Denoising, PurificationStep, State } from '../purifying/chain.ts';
import { checkPurifying, type PurifyingOptions } from '../purifying/methods.ts';
import { givenNoise, seededNoise } from '../purifying/noise.ts';
import { purificationSteps } from '../purifying/purification-steps.ts';
import {
  type ImageItem,
  type ItemFailure,
  isFailure,
  madeBy,
  type Progress,
  progressAfter,
} from '../types.ts';
import type { OpenModel } from './batcher.ts';
import { denoisingBy, imagesInFlight, mixesOf } from './denoising.ts';
import { concurrently, stoppable, unlessAborted } from './pull.ts';
import { acquire } from './sharing.ts';

/** How to purify; everything but the method has a default. */
export interface PurifyOptions extends PurifyingOptions {
  /**
   * Noises [n, c, h, w], one after the other, instead of those of the seed: step i takes noise i. The model is to be
   * opened with the same.
   */
  readonly noise?: Float32Array | undefined;
  /** Images in flight; as many as keep the model's batches full when absent. */
  readonly concurrency?: number | undefined;
  /** Told after every image. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Stops at once: images that are ready still come, then the stream rejects with the signal's reason. */
  readonly signal?: AbortSignalLike | undefined;
  /** Milliseconds of a clock. */
  readonly now?: (() => number) | undefined;
}

/** What was done to an image. */
export interface Purification {
  /** How far it moved, for pixels in [0, 1]. */
  readonly linf: number;
  readonly l2: number;
  /** Evaluations of the network, each gradient one. */
  readonly evaluations: number;
  /** Seconds of wall clock from its first step to its last. */
  readonly seconds: number;
  readonly model: string;
  /** The adapter that the model ran on. */
  readonly device?: string;
}

/** An item that was purified. */
export type Purified<Item extends ImageItem = ImageItem> = Item & { readonly purification: Purification };

/**
 * Purifies a stream of images with bounded memory: an item is pulled when fewer than `concurrency` images are in
 * flight and all purified ones have been taken. They come as they are ready, in no particular order; failures pass,
 * and an image that cannot be purified becomes one. What becomes of an image is a function of its pixels and the
 * options alone: not of the batch, the concurrency or its neighbours.
 *
 * `openModel` opens a model with `unconditional`, `distance: 'l2'`, and `purificationLevels(options)` as its levels;
 * again after a lost device. It is opened when the first image is asked for, and closed at the end, on an error, on
 * `signal` and on `return()`.
 *
 * @throws UsageError for options that cannot be meant, UnsupportedError for a model without gradients.
 */
export const purifyImages = <Item extends ImageItem>(
  source: AsyncIterable<Item | ItemFailure>,
  openModel: OpenModel,
  options: PurifyOptions,
): AsyncIterableIterator<Purified<Item> | ItemFailure, undefined> =>
  stoppable((signal) => run(source, openModel, options, signal), options.signal);

async function* run<Item extends ImageItem>(
  source: AsyncIterable<Item | ItemFailure>,
  openModel: OpenModel,
  options: PurifyOptions,
  signal: AbortSignalLike,
): AsyncGenerator<Purified<Item> | ItemFailure, undefined> {
  const { now = Date.now, onProgress } = options;
  signal.throwIfAborted();
  checkPurifying(options);
  const { batcher, release } = await unlessAborted(acquire(openModel), signal, (late) => late.release());
  const abort = (): void => release(signal.reason);
  signal.addEventListener('abort', abort);
  const began = now();
  const counts = { images: 0, failures: 0, evaluations: 0 };
  const report = (result: Purified<Item> | ItemFailure): void => {
    counts.images++;
    if (isFailure(result)) counts.failures++;
    else counts.evaluations += result.purification.evaluations;
    onProgress?.(progressAfter((now() - began) / 1000, { ...counts }));
  };
  try {
    const steps = stepsBy(batcher.model, options);
    const limit = Math.max(1, options.concurrency ?? imagesInFlight(batcher));
    const denoising = denoisingBy(batcher, signal);
    const by = { denoising, steps, now, model: batcher.model };
    const task = async (item: Item | ItemFailure): Promise<Purified<Item> | ItemFailure> => {
      const result = isFailure(item) ? item : await purifyImage(item, by);
      report(result);
      return result;
    };
    yield* concurrently(source, task, limit, signal);
  } finally {
    signal.removeEventListener('abort', abort);
    release();
  }
}

/**
 * The steps of a purification by an opened model, the same for every image.
 * @throws UsageError, UnsupportedError or ModelError where model, options and noise do not fit.
 */
export function stepsBy(
  model: Model,
  options: PurifyingOptions & { readonly noise?: Float32Array | undefined },
): PurificationStep[] {
  const { name, inputShape } = model;
  const mixes = mixesOf(model);
  const length = inputShape.reduce((product, side) => product * side, 1);
  const noise = options.noise ? givenNoise(options.noise, length) : seededNoise(options.seed ?? 0, length);
  return purificationSteps(options, { name, mixes, noise });
}

/** Sends one image through the steps. Its own fault comes back as a failure; faults of the device reject. */
async function purifyImage<Item extends ImageItem>(
  item: Item,
  {
    denoising,
    steps,
    now,
    model,
  }: {
    readonly denoising: Denoising;
    readonly steps: readonly PurificationStep[];
    readonly now: () => number;
    readonly model: Model;
  },
): Promise<Purified<Item> | ItemFailure> {
  const started = now();
  let evaluations = 0;
  const counted: Denoising = {
    lossGradient: (...asked) => {
      evaluations++;
      return denoising.lossGradient(...asked);
    },
    predict: (...asked) => {
      evaluations++;
      return denoising.predict(...asked);
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
