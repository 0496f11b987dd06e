// Decodes PNG files to 8-bit pixels. Why not with pngjs, which encodes them: it decodes data that ends early, or that
// is not compressed data at all, to black pixels; it inflates interlaced images without a bound; and it blackens the
// pixels of a transparent colour.

import { concatBytes, latin1, uint32At } from './bytes.ts';
import { fault } from './failures.ts';
import { type Orientation, orientationOf, upright } from './orientation.ts';
import { checkSize, lookedUp } from './palette.ts';
import type { Pixels } from './pixels.ts';
import { type Pass, unfilter } from './png-rows.ts';

/** What decoding takes from the host: zlib's decompression and checksum. */
interface Zlib {
  /**
   * Decompresses zlib data that should give `size` bytes. Throws `ItemError` `truncated` if the data ends early, and
   * `corrupt` if it is damaged or gives more than `limit` bytes.
   */
  readonly inflate: (data: Uint8Array, size: number, limit: number) => Promise<Uint8Array>;
  readonly crc32: (bytes: Uint8Array) => number;
}

const SIGNATURE = '\x89PNG\r\n\x1a\n';

/** Samples per pixel and the allowed bits per sample, by colour type. */
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

/** Chunks that matter for upright 8-bit pixels; the others are skipped by their length. */
const READ = ['IHDR', 'PLTE', 'IDAT', 'IEND', 'eXIf'];

/** Chunks of text, in which older programs keep EXIF data, and others XMP. */
const TEXTS = ['tEXt', 'zTXt', 'iTXt'];

/** The most bytes of text that are decompressed. */
const MOST_TEXT = 1 << 20;

/** Bytes after the last row that are ignored, as other decoders do. */
const SLACK = 64 * 1024;

interface Header {
  readonly width: number;
  readonly height: number;
  readonly depth: number;
  readonly colorType: number;
  readonly samples: number;
  readonly interlaced: boolean;
}

/** Whether the bytes begin as a PNG file does. */
export const isPng = (bytes: Uint8Array) => latin1(bytes.subarray(0, 8)) === SIGNATURE;

function readHeader(bytes: Uint8Array): Header {
  if (bytes.length < 33) throw fault('truncated', `PNG: ends after ${bytes.length} bytes, within its header`);
  if (latin1(bytes.subarray(12, 16)) !== 'IHDR') throw fault('corrupt', 'PNG: does not begin with IHDR');
  const [depth = 0, colorType = 0, compression, filter, interlace = 0] = bytes.subarray(24, 29);
  const kind = COLOR_TYPES[colorType];
  if (!kind?.depths.includes(depth))
    throw fault('corrupt', `PNG: colour type ${colorType} does not exist with ${depth} bits`);
  if (compression !== 0 || filter !== 0 || interlace > 1)
    throw fault('corrupt', `PNG: unknown methods ${compression}, ${filter}, ${interlace}`);
  const width = uint32At(bytes, 16);
  const height = uint32At(bytes, 20);
  return { width, height, depth, colorType, samples: kind.samples, interlaced: interlace === 1 };
}

interface Chunks {
  /** The compressed pixels. */
  readonly data: Uint8Array;
  readonly palette: Uint8Array | undefined;
  /** EXIF data as the chunk eXIf has it. */
  readonly exif: Uint8Array | undefined;
  /** The chunks that could have an orientation as text. */
  readonly texts: readonly Uint8Array[];
}

function readChunks(bytes: Uint8Array, crc32: Zlib['crc32']): Chunks {
  const data: Uint8Array[] = [];
  let palette: Uint8Array | undefined;
  let exif: Uint8Array | undefined;
  const texts: Uint8Array[] = [];
  for (let at = 8; ; ) {
    if (at + 12 > bytes.length)
      throw fault('truncated', `PNG: ends after ${bytes.length} bytes, without IEND`);
    const type = latin1(bytes.subarray(at + 4, at + 8));
    const end = at + 12 + uint32At(bytes, at);
    if (end > bytes.length)
      throw fault('truncated', `PNG: ends after ${bytes.length} bytes; a chunk reaches to ${end}`);
    if (READ.includes(type) && crc32(bytes.subarray(at + 4, end - 4)) !== uint32At(bytes, end - 4))
      throw fault('corrupt', `PNG: the checksum of ${type} is wrong`);
    if (type === 'PLTE') palette = bytes.subarray(at + 8, end - 4);
    if (type === 'IDAT') data.push(bytes.subarray(at + 8, end - 4));
    if (type === 'eXIf') exif = bytes.subarray(at + 8, end - 4);
    if (TEXTS.includes(type)) texts.push(bytes.subarray(at + 8, end - 4));
    if (type === 'IEND') return { data: concatBytes(data), palette, exif, texts };
    at = end;
  }
}

/** The passes over an interlaced image (Adam7): [first x, first y, step in x, step in y]. */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/** Returns the passes over an image that have pixels, in the order of their data. */
function passesOf({ width, height, depth, samples, interlaced }: Header): Pass[] {
  const steps = interlaced ? ADAM7 : ([[0, 0, 1, 1]] as const);
  const passes: Pass[] = [];
  let offset = 0;
  for (const [left, top, dx, dy] of steps) {
    const columns = Math.ceil((width - left) / dx);
    const rows = Math.ceil((height - top) / dy);
    if (columns <= 0 || rows <= 0) continue;
    const rowBytes = Math.ceil((columns * samples * depth) / 8);
    passes.push({ left, top, dx, dy, columns, rows, rowBytes, offset });
    offset += rows * (rowBytes + 1);
  }
  return passes;
}

/** Returns the samples of the pixels in 8 bits, without alpha. Indices of a palette stay as they are. */
function samplesOf(header: Header, raw: Uint8Array, passes: readonly Pass[]): Uint8Array {
  const { width, height, depth, colorType, samples } = header;
  const kept = samples > 2 ? 3 : 1;
  const out = new Uint8Array(width * height * kept);
  const step = depth >> 3;
  const mask = 2 ** depth - 1;
  const scale = colorType === PALETTE ? 1 : 255 / mask;
  for (const { left, top, dx, dy, columns, rows, rowBytes, offset } of passes) {
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

/** Returns the text after a keyword and the bytes that say how it is stored; '' if it cannot be read. */
async function textIn(chunk: Uint8Array, start: number, inflate: Zlib['inflate']): Promise<string> {
  const body = chunk.subarray(start);
  if (body[0] !== 0x78) return new TextDecoder('latin1').decode(body.subarray(0, MOST_TEXT));
  const text = await inflate(body, body.length, MOST_TEXT).catch(() => new Uint8Array());
  return new TextDecoder('latin1').decode(text);
}

/** Reads the orientation from text: EXIF data in hexadecimal digits, as ImageMagick wrote it, or XMP. */
async function orientationInTexts(
  texts: readonly Uint8Array[],
  inflate: Zlib['inflate'],
): Promise<Orientation> {
  for (const chunk of texts) {
    const keyword = latin1(chunk.subarray(0, Math.max(0, chunk.indexOf(0))));
    if (keyword === 'XML:com.adobe.xmp') {
      const xmp = new TextDecoder('latin1').decode(chunk.subarray(0, MOST_TEXT));
      const found = /tiff:Orientation(?:="|>)([1-8])/.exec(xmp);
      if (found) return Number(found[1]) as Orientation;
    } else if (/^Raw profile type (exif|APP1)$/i.test(keyword)) {
      const after = chunk.indexOf(0) + 1;
      const text = await textIn(chunk, chunk[after] === 0 ? after + 1 : after, inflate);
      const digits = /^\s*\w+\s+\d+\s+([\da-f\s]+)/i.exec(text)?.[1]?.replace(/\s/g, '') ?? '';
      const bytes = Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
      const orientation = orientationOf(latin1(bytes.subarray(0, 4)) === 'Exif' ? bytes.subarray(6) : bytes);
      if (orientation !== 1) return orientation;
    }
  }
  return 1;
}

function paletteOf(palette: Uint8Array | undefined): Uint8Array {
  if (!palette) throw fault('corrupt', 'PNG: the palette is missing');
  return palette;
}

/**
 * Decodes a PNG file of any kind to grey or RGB, as Pillow's `convert('RGB')` does: looks palettes up, stretches 1, 2
 * and 4 bits to 8, keeps the high byte of 16 bits, and drops transparency (the colour beneath stays; nothing is
 * composited). Unlike Pillow, which clips it, 16-bit grey keeps its high byte as colours do. The image is turned upright
 * if its EXIF data or XMP say how.
 *
 * Throws `ItemError` `truncated`, `corrupt`, or, if the header announces more than `maxPixels`, `too-large`.
 */
export async function decodePngWith(
  { inflate, crc32 }: Zlib,
  bytes: Uint8Array,
  maxPixels: number,
): Promise<Pixels> {
  const header = readHeader(bytes);
  const { width, height, depth, colorType, samples } = header;
  checkSize('PNG', width, height, maxPixels);
  const { data, palette, exif, texts } = readChunks(bytes, crc32);
  const passes = passesOf(header);
  const last = passes.at(-1)!;
  const size = last.offset + last.rows * (last.rowBytes + 1);
  const raw = await inflate(data, size, size + SLACK);
  if (raw.length < size) throw fault('truncated', `PNG: expected ${size} bytes of pixels, got ${raw.length}`);
  for (const pass of passes) unfilter(raw, pass, Math.max(1, (samples * depth) >> 3));
  const values = samplesOf(header, raw, passes);
  const image: Pixels =
    colorType === PALETTE
      ? { width, height, channels: 3, data: lookedUp(values, paletteOf(palette), 'PNG') }
      : { width, height, channels: samples > 2 ? 3 : 1, data: values };
  const orientation = exif ? orientationOf(exif) : await orientationInTexts(texts, inflate);
  return upright(depth > 8 ? { ...image, bitDepth: depth } : image, orientation);
}
