// PNG files to 8-bit pixels, and back. The structure is checked before pngjs decodes it, because pngjs trusts
// the header, inflates interlaced data without a bound and blackens pixels of a transparent colour.

import { promisify } from 'node:util';
import { inflate } from 'node:zlib';
import { PNG } from 'pngjs';
import { fault } from './failures.ts';
import { type Pixels, withChannels } from './pixels.ts';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const SAMPLES: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

interface Header {
  readonly width: number;
  readonly height: number;
  readonly depth: number;
  readonly colorType: number;
  readonly interlaced: boolean;
}

/** True when the bytes begin as a PNG file does. */
export const isPng = (bytes: Buffer) => bytes.subarray(0, 8).equals(SIGNATURE);

function readHeader(bytes: Buffer): Header {
  if (bytes.length < 33) throw fault('truncated', `PNG: ends after ${bytes.length} bytes, within its header`);
  if (bytes.toString('latin1', 12, 16) !== 'IHDR') throw fault('corrupt', 'PNG: does not begin with IHDR');
  const [depth = 0, colorType = 0, , , interlace = 0] = bytes.subarray(24, 29);
  if (SAMPLES[colorType] === undefined) throw fault('corrupt', `PNG: unknown colour type ${colorType}`);
  const header = {
    width: bytes.readUInt32BE(16),
    height: bytes.readUInt32BE(20),
    depth,
    colorType,
    interlaced: interlace === 1,
  };
  if (header.width === 0 || header.height === 0) throw fault('corrupt', 'PNG: an image without pixels');
  return header;
}

/** Walks the chunks: the file without its transparency, and the compressed data where it must be bounded. */
function readChunks(bytes: Buffer): { readonly opaque: Buffer; readonly data: readonly Buffer[] } {
  const kept: Buffer[] = [SIGNATURE];
  const data: Buffer[] = [];
  for (let at = 8; ; ) {
    if (at + 12 > bytes.length)
      throw fault('truncated', `PNG: ends after ${bytes.length} bytes, without IEND`);
    const length = bytes.readUInt32BE(at);
    const type = bytes.toString('latin1', at + 4, at + 8);
    const end = at + 12 + length;
    if (end > bytes.length)
      throw fault('truncated', `PNG: ends after ${bytes.length} bytes; a chunk ${type} reaches to ${end}`);
    if (type !== 'tRNS') kept.push(bytes.subarray(at, end));
    if (type === 'IDAT') data.push(bytes.subarray(at + 8, end - 4));
    if (type === 'IEND') return { opaque: Buffer.concat(kept), data };
    at = end;
  }
}

/** Refuses data that inflates to more than an interlaced image can need (each row of each pass, and its filter). */
async function boundInterlaced({ width, height, depth, colorType }: Header, data: readonly Buffer[]) {
  const row = Math.ceil((width * depth * SAMPLES[colorType]!) / 8) + 8;
  const most = row * height * 2 + 64;
  await promisify(inflate)(Buffer.concat(data), { maxOutputLength: most });
}

/**
 * Decodes a PNG file of any kind to grey or RGB, as Pillow's `convert('RGB')` does: palettes are looked up, 1, 2
 * and 4 bits are stretched to 8, of 16 bits the high byte is kept, transparency is dropped (the colour beneath
 * stays; nothing is composited). Unlike Pillow, which clips them, 16-bit grey keeps its high byte as colours do.
 *
 * @throws ItemError `truncated`, `corrupt`, or `too-large` when the header promises more than `maxPixels`.
 */
export async function decodePng(bytes: Buffer, maxPixels: number): Promise<Pixels> {
  const header = readHeader(bytes);
  const { width, height, depth, colorType } = header;
  if (width * height > maxPixels)
    throw fault('too-large', `PNG: ${width}x${height} pixels; at most ${maxPixels} are decoded`);
  const { opaque, data } = readChunks(bytes);
  let decoded: { readonly data: Uint8Array | Uint16Array };
  try {
    if (header.interlaced) await boundInterlaced(header, data);
    decoded = PNG.sync.read(opaque, { skipRescale: true });
  } catch (error) {
    throw fault('corrupt', `PNG: ${error instanceof Error ? error.message : 'cannot be decoded'}`, error);
  }
  const channels = colorType === 0 || colorType === 4 ? 1 : 3;
  const scale = colorType === 3 || depth >= 8 ? 1 : 255 / (2 ** depth - 1);
  const shift = depth === 16 ? 8 : 0;
  const out = new Uint8Array(width * height * channels);
  const from = decoded.data;
  for (let i = 0, p = 0; i < out.length; p += 4)
    for (let c = 0; c < channels; c++, i++) out[i] = (from[p + c]! * scale) >> shift;
  return { width, height, channels, data: out };
}

/** Encodes pixels as an 8-bit PNG file, grey or RGB. */
export function encodePng(image: Pixels): Buffer {
  const { width, height } = image;
  const png = new PNG({
    width,
    height,
    colorType: image.channels === 1 ? 0 : 2,
    inputColorType: 2,
    inputHasAlpha: false,
  });
  png.data = Buffer.from(withChannels(image, 3).data);
  return PNG.sync.write(png, {
    colorType: image.channels === 1 ? 0 : 2,
    inputColorType: 2,
    inputHasAlpha: false,
  });
}
