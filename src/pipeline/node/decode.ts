// Decodes image files to 8-bit pixels. Images over the size limit are refused by their header, before anything is
// decoded; a fault is an `ItemError` with a stable code. PNG, GIF, BMP and PNM are decoded by this package, the other
// formats by sharp, which is loaded for the first image of them.

import { decodeBmp } from '../images/bmp.ts';
import { fault } from '../images/failures.ts';
import { formatOf } from '../images/format.ts';
import { decodeGif } from '../images/gif.ts';
import { type DecodeLimits, MAX_BYTES, MAX_PIXELS } from '../images/limits.ts';
import type { Pixels } from '../images/pixels.ts';
import { isPng } from '../images/png.ts';
import { decodePnm } from '../images/pnm.ts';
import { decodePng } from './png.ts';
import { readWhole } from './read-file.ts';
import { decodeWithSharp } from './sharp.ts';

/**
 * Decodes the bytes of an image file to grey or RGB. Transparency is dropped and colour profiles are ignored, as in
 * Pillow's `convert('RGB')`. The orientation that a camera noted (EXIF) is applied, so that the network sees the image
 * as a person does. Of several frames or pages the first counts. Throws `ItemError` with a code of `FAILURE_CODES`.
 */
export async function decodeImage(bytes: Uint8Array, limits: DecodeLimits = {}): Promise<Pixels> {
  const maxPixels = limits.maxPixels ?? MAX_PIXELS;
  if (bytes.length === 0) throw fault('empty', 'the file has 0 bytes');
  if (isPng(bytes)) return decodePng(bytes, maxPixels);
  const format = formatOf(bytes);
  if (format === 'GIF') return decodeGif(bytes, maxPixels);
  if (format === 'BMP') return decodeBmp(bytes, maxPixels);
  if (format === 'PNM') return decodePnm(bytes, maxPixels);
  return decodeWithSharp(bytes, format, maxPixels);
}

/**
 * Reads and decodes an image file (see `decodeImage`). Throws `ItemError`, or the system's error if the file cannot be
 * read; `failureOf` makes a failed item of either.
 */
export async function decodeFile(path: string, limits: DecodeLimits = {}): Promise<Pixels> {
  return decodeImage(await readWhole(path, limits.maxBytes ?? MAX_BYTES), limits);
}
