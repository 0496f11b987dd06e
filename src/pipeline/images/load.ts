// A stream of images as a model takes them: read, decoded, resized and cropped, a few at a time.

import { availableParallelism } from 'node:os';
import type { Model } from '../../graph/model.ts';
import { mapOrdered } from '../stream/iterables.ts';
import type { ImageItem, ItemFailure } from '../types.ts';
import { failureOf } from './failures.ts';
import { type ItemOptions, itemFrom, nameOf } from './image-from.ts';
import type { ImageInput } from './image-input.ts';

export { prepare } from './prepare.ts';

/** How images are loaded. */
export interface LoadOptions extends Omit<ItemOptions, 'name'> {
  /** Images decoded at the same time; one more than the processor's cores when absent, at most 8. */
  readonly decoders?: number;
}

/** Images decoded at the same time by default: one more than the processor's cores, at most 8. */
export const DECODERS = Math.min(8, availableParallelism() + 1);

/**
 * Loads one image for a model; see `itemFrom`.
 *
 * @throws ItemError where it cannot be read or decoded.
 */
export async function loadImage(
  source: ImageInput,
  shape: Model['inputShape'],
  options: LoadOptions = {},
): Promise<Float32Array> {
  return (await itemFrom(source, shape, options)).pixels;
}

const isFailed = (item: ImageInput | ItemFailure): item is ItemFailure =>
  typeof item === 'object' && item !== null && 'error' in item;

/** One item for a model: a failure passes through, and an image that cannot be read becomes one. */
export async function loadItem(
  found: ImageInput | ItemFailure,
  shape: Model['inputShape'],
  options: LoadOptions = {},
): Promise<ImageItem | ItemFailure> {
  if (isFailed(found)) return found;
  try {
    return await itemFrom(found, shape, options);
  } catch (error) {
    return failureOf(nameOf(found), error);
  }
}

/**
 * Loads images for a model, in the order of the source: what `findImages` finds, paths, or anything that `imageFrom`
 * takes, mixed as they come. Failed items pass through, and an image that cannot be read becomes one. Pulls its
 * source; at most `decoders` decoded images wait.
 *
 * @example
 * import { findImages, loadImages } from 'diffclass-stream';
 * const images = loadImages(findImages(['photos']), [1, 28, 28]);
 */
export function loadImages(
  found: AsyncIterable<ImageInput | ItemFailure>,
  shape: Model['inputShape'],
  options: LoadOptions = {},
): AsyncGenerator<ImageItem | ItemFailure> {
  return mapOrdered(found, options.decoders ?? DECODERS, (item) => loadItem(item, shape, options));
}
