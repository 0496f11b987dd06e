import type { Crop } from '../../graph/model.ts';
import type { ImageItem } from '../types.ts';
import { loadImage } from './load.ts';
export type ImageInput = string | ImageItem;
export async function itemFrom(
  image: ImageInput,
  shape: readonly [number, number, number],
  options: { crop?: Crop | undefined; signal?: AbortSignal | undefined },
): Promise<ImageItem> {
  return typeof image === 'string'
    ? { path: image, pixels: await loadImage(image, shape, { crop: options.crop }) }
    : image;
}
