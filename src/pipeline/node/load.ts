// Loads images for a model: reads, decodes, resizes and crops them, a few at a time.

import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Model } from '../../graph/model.ts';
import { type ImageSummary, summaryOf } from '../images/conversions.ts';
import { failureOf } from '../images/failures.ts';
import type { EncodedImage, ImageInput } from '../images/image-input.ts';
import { mapOrdered } from '../stream/iterables.ts';
import type { ImageItem, ItemFailure } from '../types.ts';
import { type DecodePool, newDecodePool } from './decode-pool.ts';
import { type ItemOptions, itemFrom, nameOf } from './image-from.ts';
import { systemPath } from './system-path.ts';

/** How images are loaded. */
export interface LoadOptions extends Omit<ItemOptions, 'name'> {
  /** Images decoded at the same time. Default: one more than the processor's cores, at most 8. */
  readonly decoders?: number;
  /**
   * Called with the size and the channels of every decoded image. Large files are then decoded in threads of their own,
   * which `onDecoded`, that gets the pixels, prevents.
   */
  readonly onSummary?: ((summary: ImageSummary) => void) | undefined;
}

/** The default of `decoders`. */
export const DECODERS = Math.min(8, availableParallelism() + 1);

const isFailed = (item: ImageInput | ItemFailure): item is ItemFailure =>
  typeof item === 'object' && item !== null && 'error' in item;

/** Bytes of a file from which on it is decoded in a thread. Smaller files are small images, which take longer to pass on. */
const LARGE_FILE = 256 * 1024;

/** Whether an image is one that a thread may decode: a large file, or the bytes of one. */
async function isLargeFile(found: ImageInput): Promise<boolean> {
  if (typeof found === 'string')
    return stat(systemPath(found)).then(
      ({ size }) => size >= LARGE_FILE,
      () => false,
    );
  return typeof found === 'object' && 'path' in found && 'data' in found && isEncoded(found);
}

const isEncoded = (found: object): found is EncodedImage =>
  !('width' in found) &&
  'data' in found &&
  found.data instanceof Uint8Array &&
  found.data.length >= LARGE_FILE;

/** Loads one item for a model. Failures pass through; an image that cannot be read becomes one. */
export async function loadItem(
  found: ImageInput | ItemFailure,
  shape: Model['inputShape'],
  options: LoadOptions = {},
  pool?: DecodePool,
): Promise<ImageItem | ItemFailure> {
  if (isFailed(found)) return found;
  const { onDecoded, onSummary, crop, filter, maxPixels, maxBytes } = options;
  try {
    if (pool && !onDecoded && (await isLargeFile(found))) {
      const image = found as string | EncodedImage;
      const reply = await pool.load({ image, shape, options: { crop, filter, maxPixels, maxBytes } });
      if (reply && 'failure' in reply) return reply.failure;
      if (reply?.summary) onSummary?.(reply.summary);
      if (reply) return reply.item;
    }
    const item = await itemFrom(found, shape, {
      ...options,
      onDecoded: (image) => {
        onDecoded?.(image);
        onSummary?.(summaryOf(image));
      },
    });
    return item;
  } catch (error) {
    return failureOf(nameOf(found), error);
  }
}

/**
 * Images from threads that are passed on together. Photos come one by one, and a small network takes much longer for one
 * image after the other than for several at once: on 2 cores, 125 ms of processor time per image alone, 74 for two, 38 for
 * many.
 */
const TOGETHER = 8;

/** The most values of an image that waits for others: those of 64 x 64 RGB. Larger networks gain nothing from it. */
const SMALL_INPUT = 3 * 64 * 64;

/** Passes items on in groups of `TOGETHER`, and those it has whenever no more are being made. */
async function* grouped<T>(items: AsyncIterable<T>, making: () => boolean): AsyncGenerator<T> {
  let waiting: T[] = [];
  for await (const item of items) {
    waiting.push(item);
    if (making() && waiting.length < TOGETHER) continue;
    yield* waiting;
    waiting = [];
  }
  yield* waiting;
}

/**
 * Loads images for a model, in the order of the source. Failed items pass through; an image that cannot be read becomes
 * one. Pulls its source; at most `decoders` decoded images wait. Large files are decoded in threads (`node:worker_threads`),
 * of which there are as many as cores, if they can be started and nothing asks for the pixels (`onDecoded`).
 *
 * @param found what `findImages` finds, paths, or anything that `imageFrom` takes, in any mixture.
 * @param shape the input shape [channels, height, width] of the model.
 * @param options limits, the crop that the model expects (`Model.crop`), and how many images are decoded at a time.
 * @return images with `pixels` [channels, height, width] in [-1, 1], and failures.
 *
 * @example
 * import { findImages, loadImages } from 'diffclass-stream';
 * const images = loadImages(findImages(['photos']), [1, 28, 28]);
 */
export async function* loadImages(
  found: AsyncIterable<ImageInput | ItemFailure>,
  shape: Model['inputShape'],
  options: LoadOptions = {},
): AsyncGenerator<ImageItem | ItemFailure> {
  const limit = options.decoders ?? DECODERS;
  const pool = newDecodePool(limit);
  try {
    const items = mapOrdered(found, limit, (item) => loadItem(item, shape, options, pool));
    const isSmall = shape[0] * shape[1] * shape[2] <= SMALL_INPUT;
    yield* isSmall ? grouped(items, pool.busy) : items;
  } finally {
    pool.close();
  }
}
