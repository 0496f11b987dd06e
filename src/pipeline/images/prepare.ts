// Fits a decoded image to a model.

import { UsageError } from '../../errors.ts';
import type { Crop, ImageGeometry, Model } from '../../graph/model.ts';
import { type Pixels, toModelInput, withChannels } from './pixels.ts';
import { admCrop, coverOf, type Filter, resizeAndCrop } from './resize.ts';

/** How an image is fitted to a model's shape. */
export interface PrepareOptions {
  /** Filter of the resizing. Default: `bicubic`. */
  readonly filter?: Filter | undefined;
  /** How the image is cropped. Default: `centre`; use the model's `crop`. `adm` has its own filters. */
  readonly crop?: Crop | undefined;
}

/**
 * Fits an image to a model's input shape [channels, height, width]: converts it to these channels, resizes its shorter
 * side and crops the centre (or as `crop` says). Returns pixels [channels, height, width] in [-1, 1]. Throws `UsageError`
 * unless the shape has 1 or 3 channels and, for the crop `adm`, equal sides.
 */
export function prepareImage(
  image: Pixels,
  shape: Model['inputShape'],
  { filter = 'bicubic', crop = 'centre' }: PrepareOptions = {},
): Float32Array {
  const [channels, height, width] = shape;
  if (channels !== 1 && channels !== 3)
    throw new UsageError(`expected a model of images with 1 or 3 channels, got one with ${channels}`);
  if (crop === 'adm') {
    if (height !== width)
      throw new UsageError(`the crop adm: expected a model of square images, got one of ${width}x${height}`);
    return toModelInput(admCrop(withChannels(image, channels), width));
  }
  return toModelInput(resizeAndCrop(image, width, height, filter, channels));
}

/** Returns where the pixels of a model's image are in an image that `prepareImage` fits by a `centre` crop. */
export function geometryOf(
  image: Pick<Pixels, 'width' | 'height'>,
  [, height, width]: Model['inputShape'],
): ImageGeometry {
  const { top, left } = coverOf(image, width, height);
  return { height: image.height, width: image.width, top, left };
}
