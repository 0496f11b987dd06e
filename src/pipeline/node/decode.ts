// Decodes image files to 8-bit pixels. Images over the size limit are refused by their header, before anything is
// decoded; a fault is an `ItemError` with a stable code. PNG is decoded by `png.ts`, the other formats by sharp, which is
// loaded for the first image of them.

import type { Sharp, default as SharpModule } from 'sharp';
import { fault } from '../images/failures.ts';
import { formatOf } from '../images/format.ts';
import { type DecodeLimits, MAX_BYTES, MAX_PIXELS } from '../images/limits.ts';
import { type Pixels, withChannels } from '../images/pixels.ts';
import { isPng } from '../images/png.ts';
import { decodePng } from './png.ts';
import { readWhole } from './read-file.ts';

async function loadSharp(format: string): Promise<typeof SharpModule> {
  try {
    return (await import('sharp')).default;
  } catch (error) {
    throw fault(
      'decoder-missing',
      `${format} needs the package sharp, which is not installed for this system`,
      error,
    );
  }
}

const isGreySpace = (space: string | undefined) => space === 'b-w' || space === 'grey16';

/** Whether an image is grey. sharp returns grey images as RGB, and operations that the caller added may colour them. */
function isGrey({ channels, data }: Pixels): boolean {
  if (channels === 1) return true;
  for (let i = 0; i < data.length; i += 3)
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false;
  return true;
}

/**
 * Returns the pixels of a sharp instance, turned upright and without alpha, as `decodeImage` returns them. `format` is
 * named in messages.
 */
export async function pixelsOfSharp(image: Sharp, format: string, maxPixels: number): Promise<Pixels> {
  try {
    const { width = 0, height = 0, depth, space } = await image.metadata();
    if (width * height > maxPixels)
      throw fault('too-large', `${format}: ${width}x${height} pixels; at most ${maxPixels} are decoded`);
    const raw = image.autoOrient().removeAlpha().toColourspace('srgb').raw({ depth: 'uchar' });
    const { data, info } = await raw.toBuffer({ resolveWithObject: true });
    const channels = info.channels === 1 ? 1 : 3;
    const decoded: Pixels = { width: info.width, height: info.height, channels, data };
    const pixels = isGreySpace(space) && isGrey(decoded) ? withChannels(decoded, 1) : decoded;
    return depth === 'ushort' ? { ...pixels, bitDepth: 16 } : pixels;
  } catch (error) {
    if (!(error instanceof Error) || error.name === 'ItemError') throw error;
    const reason = error.message.split('\n')[0] ?? '';
    if (reason.startsWith('Input file is missing')) throw fault('not-found', `${format}: ${reason}`, error);
    const cut = /premature|truncat|unexpected end|end of (file|stream)|not enough/i.test(error.message);
    throw fault(cut ? 'truncated' : 'corrupt', `${format}: ${reason}`, error);
  }
}

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
  const sharp = await loadSharp(format);
  const options = { failOn: 'truncated', ignoreIcc: true, limitInputPixels: false } as const;
  return pixelsOfSharp(sharp(bytes, options), format, maxPixels);
}

/**
 * Reads and decodes an image file (see `decodeImage`). Throws `ItemError`, or the system's error if the file cannot be
 * read; `failureOf` makes a failed item of either.
 */
export async function decodeFile(path: string, limits: DecodeLimits = {}): Promise<Pixels> {
  return decodeImage(await readWhole(path, limits.maxBytes ?? MAX_BYTES), limits);
}
