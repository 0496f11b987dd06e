// PNG files with Node's zlib: decodes all of them, and encodes 8-bit grey and RGB ones.

import { createRequire } from 'node:module';
import { crc32 } from 'node:zlib';
import { type Pixels, withChannels } from '../images/pixels.ts';
import { decodePngWith } from '../images/png.ts';
import { inflated } from './inflate.ts';

/** Decodes a PNG file; see `decodePngWith`. */
export const decodePng = (bytes: Uint8Array, maxPixels: number): Promise<Pixels> =>
  decodePngWith(
    { inflate: (data, size, limit) => inflated('PNG', data, size, limit), crc32 },
    bytes,
    maxPixels,
  );

/** Loads pngjs when it is first needed: bundlers cannot put it into an ES module, and reading images does without it. */
const loadPngjs = () => createRequire(import.meta.url)('pngjs') as typeof import('pngjs');

/** Encodes pixels as an 8-bit PNG file, grey or RGB. */
export function encodePng(image: Pixels): Buffer {
  const { PNG } = loadPngjs();
  const { width, height } = image;
  const colorType = image.channels === 1 ? 0 : 2;
  const options = { width, height, colorType, inputColorType: 2, inputHasAlpha: false } as const;
  const png = new PNG(options);
  png.data = Buffer.from(withChannels(image, 3).data);
  return PNG.sync.write(png, options);
}
