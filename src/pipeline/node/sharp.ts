// Decodes JPEG, TIFF, WebP and AVIF with sharp.

import type { Sharp, default as SharpModule } from 'sharp';
import { cmykToRgb } from '../images/cmyk.ts';
import { fault } from '../images/failures.ts';
import { checkSize } from '../images/palette.ts';
import { type Pixels, withChannels } from '../images/pixels.ts';
import { checkTiff } from '../images/tiff.ts';
import { inflated } from './inflate.ts';

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

/** Views a Buffer as the type that all other pixels have: loops that meet both types are slower by a third. */
const plain = ({ buffer, byteOffset, length }: Uint8Array) => new Uint8Array(buffer, byteOffset, length);

/** What an error of sharp means for a file. */
function faultOf(format: string, error: Error) {
  const reason = error.message.split('\n')[0] ?? '';
  if (reason.startsWith('Input file is missing')) return fault('not-found', `${format}: ${reason}`, error);
  if (/not (configured|supported|implemented)|unsupported|bad labq|whole number of bytes/i.test(reason))
    return fault('unsupported-format', `${format}: ${reason}`, error);
  const cut =
    /premature|truncat|unexpected end|end of (file|stream)|not enough|read error|bad seek|JPEG datastream/i;
  return fault(cut.test(error.message) ? 'truncated' : 'corrupt', `${format}: ${reason}`, error);
}

/** Returns the high bytes of 16-bit samples. */
const highBytes = (data: Uint8Array): Uint8Array =>
  Uint8Array.from({ length: data.length / 2 }, (_, i) => data[2 * i + HIGH_BYTE]!);

/** Offset of the high byte of a 16-bit integer in memory. */
const HIGH_BYTE = new Uint8Array(Uint16Array.of(256).buffer).indexOf(1);

/** Returns the CMYK pixels of a sharp instance as RGB. libvips has no cast of 16 bits to 8 that keeps the high byte. */
async function pixelsOfCmyk(image: Sharp, depth: string | undefined): Promise<Pixels> {
  const kept = depth === 'ushort' ? 'ushort' : 'uchar';
  const { data, info } = await image
    .pipelineColourspace('cmyk')
    .toColourspace('cmyk')
    .raw({ depth: kept })
    .toBuffer({ resolveWithObject: true });
  const { width, height, channels } = info;
  const rgb = cmykToRgb(kept === 'ushort' ? highBytes(data) : data, channels);
  return { width, height, channels: 3, data: rgb };
}

/**
 * Returns the pixels of a sharp instance, turned upright and without alpha, as `decodeImage` returns them. `format` is
 * named in messages.
 */
export async function pixelsOfSharp(image: Sharp, format: string, maxPixels: number): Promise<Pixels> {
  try {
    const { width = 0, height = 0, depth, space } = await image.metadata();
    checkSize(format, width, height, maxPixels);
    const turned = image.autoOrient().removeAlpha();
    if (space === 'cmyk') return await pixelsOfCmyk(turned, depth);
    const raw = turned.toColourspace('srgb').raw({ depth: 'uchar' });
    const { data, info } = await raw.toBuffer({ resolveWithObject: true });
    const { channels } = info;
    if (channels !== 1 && channels !== 3)
      throw fault('unsupported-format', `${format}: ${channels} channels are not decoded`);
    const decoded: Pixels = { width: info.width, height: info.height, channels, data: plain(data) };
    const pixels = isGreySpace(space) && isGrey(decoded) ? withChannels(decoded, 1) : decoded;
    return depth === 'ushort' ? { ...pixels, bitDepth: 16 } : pixels;
  } catch (error) {
    if (!(error instanceof Error) || error.name === 'ItemError') throw error;
    throw faultOf(format, error);
  }
}

/** Warnings of libjpeg and libtiff that mean damaged pixels. Others are about tags, or bytes between markers. */
const DAMAGE =
  /Corrupt JPEG data: (?!\d+ extraneous)|Bad code word|Premature EOL|Premature EOF|Line length mismatch|Uncompressed data|Fractional scanline|bogus (Huffman|progressive)/i;

/**
 * Decodes the bytes of a JPEG, TIFF, WebP or AVIF file with sharp. Damage that the decoder notices, if only by a warning,
 * is a fault and never gives other pixels.
 */
export async function decodeWithSharp(bytes: Uint8Array, format: string, maxPixels: number): Promise<Pixels> {
  if (format === 'TIFF') await checkTiff(bytes, checkInflates);
  const sharp = await loadSharp(format);
  const decode = (failOn: 'warning' | 'error') =>
    pixelsOfSharp(sharp(bytes, { failOn, ignoreIcc: true, limitInputPixels: false }), format, maxPixels);
  if (format !== 'JPEG' && format !== 'TIFF') return decode('error');
  try {
    return await decode('warning');
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : '';
    if (cause === '' || DAMAGE.test(cause)) throw error;
    return decode('error');
  }
}

/** The most bytes that a strip or tile is inflated to for its checksum; larger ones are left to libtiff. */
const LARGEST_PART = 64 * 2 ** 20;

/** Throws `ItemError` if deflated data of a TIFF file is damaged. */
async function checkInflates(data: Uint8Array): Promise<void> {
  await inflated('TIFF', data, data.length, LARGEST_PART);
}
