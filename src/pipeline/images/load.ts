// Paths to images as a model takes them: read, decoded, resized and cropped, a few at a time.

import { availableParallelism } from 'node:os';
import type { Crop } from '../../graph/model.ts';
import { UsageError } from '../errors.ts';
import { mapOrdered } from '../stream/iterables.ts';
import type { ImageItem, ItemFailure } from '../types.ts';
import { type DecodeLimits, decodeFile } from './decode.ts';
import { failureOf } from './failures.ts';
import { type Pixels, toModelInput, withChannels } from './pixels.ts';
import { admCrop, type Filter, resizeAndCrop } from './resample.ts';
import type { Found } from './sources.ts';

/** How images are loaded. */
export interface LoadOptions extends DecodeLimits {
  /** Filter of the resizing; bicubic when absent. */
  readonly filter?: Filter;
  /** How the square is cut out of the image; a model says which it wants. `adm` takes no filter. */
  readonly crop?: Crop | undefined;
  /** Images decoded at the same time; one more than the processor's cores when absent, at most 8. */
  readonly decoders?: number;
}

/**
 * An image as a model of input shape [channels, height, width] takes it: converted to its channels, its shorter
 * side resized and the centre cropped (or as `crop` says), in [-1, 1].
 *
 * @throws UsageError unless the model takes 1 or 3 channels, and a square where the crop is one.
 */
export function prepare(
  image: Pixels,
  shape: readonly [channels: number, height: number, width: number],
  { filter = 'bicubic', crop = 'centre' }: Pick<LoadOptions, 'filter' | 'crop'> = {},
): Float32Array {
  const [channels, height, width] = shape;
  if (channels !== 1 && channels !== 3)
    throw new UsageError(`the model takes images of ${channels} channels, which no image file has (1 or 3)`);
  const pixels = withChannels(image, channels);
  if (crop === 'adm') {
    if (height !== width) throw new UsageError(`the crop adm is square, the model takes ${width}x${height}`);
    return toModelInput(admCrop(pixels, width));
  }
  return toModelInput(resizeAndCrop(pixels, width, height, filter));
}

/**
 * One image for a model; see `prepare`.
 *
 * @throws ItemError where the file cannot be read or decoded.
 */
export async function loadImage(
  path: string,
  shape: readonly [channels: number, height: number, width: number],
  options: LoadOptions = {},
): Promise<Float32Array> {
  return prepare(await decodeFile(path, options), shape, options);
}

/** Images decoded at the same time where nobody says: one more than the processor's cores, at most 8. */
export const DECODERS = Math.min(8, availableParallelism() + 1);

/** One item for a model: a failure passes, and a file that cannot be decoded becomes one. */
export async function loadItem(
  found: Found,
  shape: readonly [channels: number, height: number, width: number],
  options: LoadOptions = {},
): Promise<ImageItem | ItemFailure> {
  if (typeof found !== 'string') return found;
  try {
    return { path: found, pixels: await loadImage(found, shape, options) };
  } catch (error) {
    return failureOf(found, error);
  }
}

/**
 * Loads images for a model, in the order of their paths. Failed items pass through, and a file that cannot be
 * decoded becomes one. Pulls its source; at most `decoders` decoded images wait.
 */
export function loadImages(
  found: AsyncIterable<Found>,
  shape: readonly [channels: number, height: number, width: number],
  options: LoadOptions = {},
): AsyncGenerator<ImageItem | ItemFailure> {
  return mapOrdered(found, options.decoders ?? DECODERS, (item) => loadItem(item, shape, options));
}
