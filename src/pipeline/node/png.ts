// PNG files with Node's zlib: decodes all of them, and encodes 8-bit grey and RGB ones.

import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { crc32, inflate, inflateSync } from 'node:zlib';
import { fault } from '../images/failures.ts';
import { type Pixels, withChannels } from '../images/pixels.ts';
import { decodePngWith } from '../images/png.ts';

/** The largest image, in bytes, that is inflated synchronously on this thread; larger ones use the thread pool. */
const SMALL = 256 * 1024;

async function inflated(data: Uint8Array, size: number, limit: number): Promise<Uint8Array> {
  const options = { maxOutputLength: limit };
  try {
    if (size <= SMALL) return inflateSync(data, options);
    return await promisify<Uint8Array, object, Buffer>(inflate)(data, options);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'Z_BUF_ERROR') throw fault('truncated', 'PNG: the compressed data ends early', error);
    if (code === 'ERR_BUFFER_TOO_LARGE') throw fault('corrupt', 'PNG: more data than pixels', error);
    throw fault('corrupt', `PNG: ${error instanceof Error ? error.message : 'cannot be inflated'}`, error);
  }
}

/** Decodes a PNG file; see `decodePngWith`. */
export const decodePng = (bytes: Uint8Array, maxPixels: number): Promise<Pixels> =>
  decodePngWith({ inflate: inflated, crc32 }, bytes, maxPixels);

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
