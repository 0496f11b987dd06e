// Image files to 8-bit pixels. Sizes are read from the header and refused before anything is decoded; a fault
// is an `ItemError` with a stable code. PNG is decoded here, the other formats by sharp, which is loaded when
// the first of them appears.

import { constants, open } from 'node:fs/promises';
import type { Sharp, default as SharpModule } from 'sharp';
import { systemPath } from '../escaping.ts';
import { fault } from './failures.ts';
import { type DecodeLimits, MAX_BYTES, MAX_PIXELS } from './limits.ts';
import { type Pixels, withChannels } from './pixels.ts';
import { decodePng, isPng } from './png.ts';

interface Format {
  readonly name: string;
  /** Where its mark stands, and what it may be (latin1). */
  readonly at: number;
  readonly marks: readonly string[];
  readonly decoded: boolean;
}

/** Formats by their first bytes; those without a decoder are named so that the message can be exact. */
const FORMATS: readonly Format[] = [
  { name: 'JPEG', at: 0, marks: ['\xff\xd8\xff'], decoded: true },
  { name: 'GIF', at: 0, marks: ['GIF87a', 'GIF89a'], decoded: true },
  { name: 'WebP', at: 8, marks: ['WEBP'], decoded: true },
  { name: 'TIFF', at: 0, marks: ['II*\0', 'MM\0*', 'II+\0', 'MM\0+'], decoded: true },
  { name: 'AVIF', at: 4, marks: ['ftypavif', 'ftypavis', 'ftypmif1', 'ftypmsf1'], decoded: true },
  { name: 'HEIC', at: 4, marks: ['ftyphei', 'ftyphev'], decoded: false },
  { name: 'BMP', at: 0, marks: ['BM'], decoded: false },
  { name: 'JPEG 2000', at: 4, marks: ['jP  '], decoded: false },
  { name: 'JPEG XL', at: 0, marks: ['\xff\x0a', '\0\0\0\x0cJXL '], decoded: false },
];

/** The bytes of a regular file; opening a pipe must not wait for its other end. */
async function readWhole(path: string, maxBytes: number): Promise<Buffer> {
  const file = await open(systemPath(path), constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const info = await file.stat();
    if (!info.isFile()) throw fault('not-a-file', 'not a regular file');
    if (info.size === 0) throw fault('empty', 'the file has 0 bytes');
    if (info.size > maxBytes) throw fault('too-large', `${info.size} bytes; at most ${maxBytes} are read`);
    return await file.readFile();
  } finally {
    await file.close();
  }
}

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

/** sharp gives grey images as RGB; operations that the caller added may have coloured them. */
function isGrey({ channels, data }: Pixels): boolean {
  if (channels === 1) return true;
  for (let i = 0; i < data.length; i += 3)
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false;
  return true;
}

/**
 * Takes the pixels out of an instance of sharp, turned upright and without alpha, as `decodeImage` gives them; `format`
 * is for messages.
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

async function decodeWithSharp(bytes: Buffer, format: string, maxPixels: number): Promise<Pixels> {
  const sharp = await loadSharp(format);
  const options = { failOn: 'truncated', ignoreIcc: true, limitInputPixels: false } as const;
  return pixelsOfSharp(sharp(bytes, options), format, maxPixels);
}

/**
 * Decodes the bytes of an image file to grey or RGB.
 * Transparency is dropped and colour profiles are ignored, as in Pillow's `convert('RGB')`; the orientation that
 * a camera noted (EXIF) is applied, so that the network sees the image as a person does. Of several frames or
 * pages the first counts.
 *
 * @throws ItemError with a code of `FAILURE_CODES`.
 */
export async function decodeImage(bytes: Buffer, limits: DecodeLimits = {}): Promise<Pixels> {
  const maxPixels = limits.maxPixels ?? MAX_PIXELS;
  if (bytes.length === 0) throw fault('empty', 'the file has 0 bytes');
  if (isPng(bytes)) return decodePng(bytes, maxPixels);
  const head = bytes.toString('latin1', 0, 32);
  const format = FORMATS.find(({ at, marks }) => marks.some((mark) => head.startsWith(mark, at)));
  if (format === undefined) throw fault('not-an-image', 'its first bytes are those of no image format');
  if (!format.decoded) throw fault('unsupported-format', `${format.name} images are not decoded`);
  return decodeWithSharp(bytes, format.name, maxPixels);
}

/**
 * Reads and decodes an image file (see `decodeImage`).
 *
 * @throws ItemError, or the system's error when the file cannot be read; `failureOf` makes either an item.
 */
export async function decodeFile(path: string, limits: DecodeLimits = {}): Promise<Pixels> {
  return decodeImage(await readWhole(path, limits.maxBytes ?? MAX_BYTES), limits);
}
