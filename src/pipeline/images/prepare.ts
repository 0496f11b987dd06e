// From a decoded image to the numbers that a model takes.

import { UsageError } from '../../errors.ts';
import type { Crop, Model } from '../../graph/model.ts';
import { type Pixels, toModelInput, withChannels } from './pixels.ts';
import { admCrop, type Filter, resizeAndCrop } from './resample.ts';

/** How an image is fitted to a model's shape. */
export interface PrepareOptions {
  /** Filter of the resizing; bicubic when absent. */
  readonly filter?: Filter | undefined;
  /** How the square is cut out of the image; a model says which it expects. `adm` takes no filter. */
  readonly crop?: Crop | undefined;
}

/**
 * Fits an image to a model's input shape [channels, height, width]: converts it to these channels, resizes its shorter
 * side and crops the centre (or as `crop` says). Returns values in [-1, 1].
 *
 * @throws UsageError unless the model takes 1 or 3 channels, and a square where the crop is one.
 */
export function prepare(
  image: Pixels,
  shape: Model['inputShape'],
  { filter = 'bicubic', crop = 'centre' }: PrepareOptions = {},
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
