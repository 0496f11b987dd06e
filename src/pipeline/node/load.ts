// Loads images for a model: reads, decodes, resizes and crops them, a few at a time.

import { availableParallelism } from 'node:os';
import type { Model } from '../../graph/model.ts';
import { failureOf } from '../images/failures.ts';
import type { ImageInput } from '../images/image-input.ts';
import { mapOrdered } from '../stream/iterables.ts';
import type { ImageItem, ItemFailure } from '../types.ts';
import { type ItemOptions, itemFrom, nameOf } from './image-from.ts';

/** How images are loaded. */
export interface LoadOptions extends Omit<ItemOptions, 'name'> {
  /** Images decoded at the same time. Default: one more than the processor's cores, at most 8. */
  readonly decoders?: number;
}

/** The default of `decoders`. */
export const DECODERS = Math.min(8, availableParallelism() + 1);

const isFailed = (item: ImageInput | ItemFailure): item is ItemFailure =>
  typeof item === 'object' && item !== null && 'error' in item;

/** Loads one item for a model. Failures pass through; an image that cannot be read becomes one. */
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
 * Loads images for a model, in the order of the source. Failed items pass through; an image that cannot be read becomes
 * one. Pulls its source; at most `decoders` decoded images wait.
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
export function loadImages(
  found: AsyncIterable<ImageInput | ItemFailure>,
  shape: Model['inputShape'],
  options: LoadOptions = {},
): AsyncGenerator<ImageItem | ItemFailure> {
  return mapOrdered(found, options.decoders ?? DECODERS, (item) => loadItem(item, shape, options));
}
