// PNG files to 8-bit pixels, and back. Decoding is our own: pngjs, which encodes, takes data that ends early or
// is no compressed data at all for black pixels, inflates interlaced images without a bound, and blackens the
// pixels of a transparent colour.

import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { crc32, inflate, inflateSync } from 'node:zlib';
import { fault } from './failures.ts';
import { type Pixels, withChannels } from './pixels.ts';
import { type Grid, unfilter } from './png-rows.ts';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Samples of a pixel and the allowed bits of a sample, by colour type. */
const COLOR_TYPES: Readonly<
  Record<number, { readonly samples: number; readonly depths: readonly number[] }>
> = {
  0: { samples: 1, depths: [1, 2, 4, 8, 16] },
  2: { samples: 3, depths: [8, 16] },
  3: { samples: 1, depths: [1, 2, 4, 8] },
  4: { samples: 2, depths: [8, 16] },
  6: { samples: 4, depths: [8, 16] },
};

const PALETTE = 3;

/** Chunks that matter for 8-bit pixels; of the others only the length is looked at. */
const READ = ['IHDR', 'PLTE', 'IDAT', 'IEND'];

/** Bytes that inflate on this thread at once; more go through the thread pool. */
const SMALL = 256 * 1024;

/** Bytes behind the last row that are let pass, as other decoders do. */
const SLACK = 64 * 1024;

interface Header {
  readonly width: number;
  readonly height: number;
  readonly depth: number;
  readonly colorType: number;
  readonly samples: number;
  readonly interlaced: boolean;
}

/** True when the bytes begin as a PNG file does. */
export const isPng = (bytes: Buffer) => bytes.subarray(0, 8).equals(SIGNATURE);

function readHeader(bytes: Buffer): Header {
  if (bytes.length < 33) throw fault('truncated', `PNG: ends after ${bytes.length} bytes, within its header`);
  if (bytes.toString('latin1', 12, 16) !== 'IHDR') throw fault('corrupt', 'PNG: does not begin with IHDR');
  const [depth = 0, colorType = 0, compression, filter, interlace = 0] = bytes.subarray(24, 29);
  const kind = COLOR_TYPES[colorType];
  if (!kind?.depths.includes(depth))
    throw fault('corrupt', `PNG: there is no colour type ${colorType} with ${depth} bits`);
  if (compression !== 0 || filter !== 0 || interlace > 1)
    throw fault('corrupt', `PNG: unknown methods ${compression}, ${filter}, ${interlace}`);
  const width = bytes.readUInt32BE(16);
  const height = bytes.readUInt32BE(20);
  if (width === 0 || height === 0) throw fault('corrupt', 'PNG: an image without pixels');
  return { width, height, depth, colorType, samples: kind.samples, interlaced: interlace === 1 };
}

/** The compressed data and the palette. */
function readChunks(bytes: Buffer): { readonly data: Buffer; readonly palette: Buffer | undefined } {
  const data: Buffer[] = [];
  let palette: Buffer | undefined;
  for (let at = 8; ; ) {
    if (at + 12 > bytes.length)
      throw fault('truncated', `PNG: ends after ${bytes.length} bytes, without IEND`);
    const type = bytes.toString('latin1', at + 4, at + 8);
    const end = at + 12 + bytes.readUInt32BE(at);
    if (end > bytes.length)
      throw fault('truncated', `PNG: ends after ${bytes.length} bytes; a chunk reaches to ${end}`);
    if (READ.includes(type) && crc32(bytes.subarray(at + 4, end - 4)) !== bytes.readUInt32BE(end - 4))
      throw fault('corrupt', `PNG: the checksum of ${type} is wrong`);
    if (type === 'PLTE') palette = bytes.subarray(at + 8, end - 4);
    if (type === 'IDAT') data.push(bytes.subarray(at + 8, end - 4));
    if (type === 'IEND') return { data: Buffer.concat(data), palette };
    at = end;
  }
}

/** Offsets and steps of the passes of an interlaced image (Adam7): [x, y, step in x, step in y]. */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

function gridsOf({ width, height, depth, samples, interlaced }: Header): Grid[] {
  const passes = interlaced ? ADAM7 : ([[0, 0, 1, 1]] as const);
  const grids: Grid[] = [];
  let offset = 0;
  for (const [left, top, dx, dy] of passes) {
    const columns = Math.ceil((width - left) / dx);
    const rows = Math.ceil((height - top) / dy);
    if (columns <= 0 || rows <= 0) continue;
    const rowBytes = Math.ceil((columns * samples * depth) / 8);
    grids.push({ left, top, dx, dy, columns, rows, rowBytes, offset });
    offset += rows * (rowBytes + 1);
  }
  return grids;
}

async function inflated(data: Buffer, size: number): Promise<Buffer> {
  const options = { maxOutputLength: size + SLACK };
  let out: Buffer;
  try {
    out =
      size <= SMALL
        ? inflateSync(data, options)
        : await promisify<Buffer, object, Buffer>(inflate)(data, options);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'Z_BUF_ERROR') throw fault('truncated', 'PNG: the compressed data ends early', error);
    if (code === 'ERR_BUFFER_TOO_LARGE') throw fault('corrupt', 'PNG: more data than pixels', error);
    throw fault('corrupt', `PNG: ${error instanceof Error ? error.message : 'cannot be inflated'}`, error);
  }
  if (out.length < size) throw fault('truncated', `PNG: ${out.length} bytes of pixels; wanted ${size}`);
  return out;
}

/** The samples of the pixels in 8 bits, without alpha; indices of a palette are left as they are. */
function samplesOf(header: Header, raw: Buffer, grids: readonly Grid[]): Uint8Array {
  const { width, height, depth, colorType, samples } = header;
  const kept = samples > 2 ? 3 : 1;
  const out = new Uint8Array(width * height * kept);
  const step = depth >> 3;
  const mask = 2 ** depth - 1;
  const scale = colorType === PALETTE ? 1 : 255 / mask;
  for (const { left, top, dx, dy, columns, rows, rowBytes, offset } of grids) {
    for (let row = 0; row < rows; row++) {
      const line = offset + row * (rowBytes + 1) + 1;
      let to = ((top + row * dy) * width + left) * kept;
      for (let column = 0; column < columns; column++, to += dx * kept) {
        if (step === 0) {
          const bit = column * depth;
          out[to] = ((raw[line + (bit >> 3)]! >> (8 - depth - (bit & 7))) & mask) * scale;
        } else {
          const from = line + column * samples * step;
          for (let c = 0; c < kept; c++) out[to + c] = raw[from + c * step]!;
        }
      }
    }
  }
  return out;
}

function lookedUp(indices: Uint8Array, palette: Buffer | undefined): Uint8Array {
  if (!palette) throw fault('corrupt', 'PNG: the palette is missing');
  const out = new Uint8Array(indices.length * 3);
  for (let i = 0; i < indices.length; i++) {
    const entry = indices[i]! * 3;
    if (entry + 3 > palette.length) throw fault('corrupt', `PNG: colour ${indices[i]} is beyond the palette`);
    for (let c = 0; c < 3; c++) out[i * 3 + c] = palette[entry + c]!;
  }
  return out;
}

/**
 * Decodes a PNG file of any kind to grey or RGB, as Pillow's `convert('RGB')` does: palettes are looked up, 1, 2
 * and 4 bits are stretched to 8, of 16 bits the high byte is kept, transparency is dropped (the colour beneath
 * stays; nothing is composited). Unlike Pillow, which clips it, 16-bit grey keeps its high byte as colours do.
 *
 * @throws ItemError `truncated`, `corrupt`, or `too-large` when the header promises more than `maxPixels`.
 */
export async function decodePng(bytes: Buffer, maxPixels: number): Promise<Pixels> {
  const header = readHeader(bytes);
  const { width, height, depth, colorType, samples } = header;
  if (width * height > maxPixels)
    throw fault('too-large', `PNG: ${width}x${height} pixels; at most ${maxPixels} are decoded`);
  const { data, palette } = readChunks(bytes);
  const grids = gridsOf(header);
  const last = grids.at(-1)!;
  const raw = await inflated(data, last.offset + last.rows * (last.rowBytes + 1));
  for (const grid of grids) unfilter(raw, grid, Math.max(1, (samples * depth) >> 3));
  const values = samplesOf(header, raw, grids);
  if (colorType === PALETTE) return { width, height, channels: 3, data: lookedUp(values, palette) };
  const pixels: Pixels = { width, height, channels: samples > 2 ? 3 : 1, data: values };
  return depth > 8 ? { ...pixels, bitDepth: depth } : pixels;
}

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
