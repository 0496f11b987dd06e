// Checks the structure of a TIFF file before it is decoded. libtiff gives other pixels, or none with a misleading message,
// for some damaged files and for kinds that it was built without.

import { fault } from './failures.ts';
import { fileView } from './file-view.ts';

/** Compressions of TIFF that are not decoded, by their numbers. */
const UNSUPPORTED: Readonly<Record<number, string>> = {
  6: 'old-style JPEG',
  34676: 'LogLuv',
  34677: 'LogLuv',
  34712: 'JPEG 2000',
  34887: 'LERC',
  34892: 'lossy JPEG',
  34925: 'LZMA',
  50000: 'Zstandard',
  50002: 'JPEG XL',
};

const DEFLATE = [8, 32946];

const TAG = {
  bits: 258,
  compression: 259,
  fillOrder: 266,
  stripOffsets: 273,
  samples: 277,
  stripBytes: 279,
  planar: 284,
  tileOffsets: 324,
  tileBytes: 325,
  sampleFormat: 339,
} as const;

/** Bytes per value of the types of integers. */
const SIZES: Readonly<Record<number, number>> = { 1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8 };

/** The most strips or tiles that are looked at. */
const MOST_PARTS = 1 << 20;

/** The integers of the first page's tags, by their numbers. Throws `ItemError` `truncated` if the file ends before. */
function firstPage(bytes: Uint8Array): (tag: number) => readonly number[] | undefined {
  const { u16, u32 } = fileView(bytes, 'TIFF', bytes[0] === 0x4d);
  const bigEndian = bytes[0] === 0x4d;
  const u64 = (at: number) => u32(at + (bigEndian ? 4 : 0)) + u32(at + (bigEndian ? 0 : 4)) * 2 ** 32;
  const big = u16(2) === 43;
  const pointer = big ? u64 : u32;
  const word = big ? 8 : 4;
  const start = pointer(big ? 8 : 4);
  const count = big ? u64(start) : u16(start);
  const entries = new Map<number, number>();
  const entrySize = big ? 20 : 12;
  for (let i = 0; i < Math.min(count, 0xffff); i++) {
    const at = start + (big ? 8 : 2) + i * entrySize;
    entries.set(u16(at), at);
  }
  return (tag) => {
    const entry = entries.get(tag);
    if (entry === undefined) return undefined;
    const size = SIZES[u16(entry + 2)];
    const length = pointer(entry + 4);
    if (size === undefined || length > MOST_PARTS) return undefined;
    const inside = entry + 4 + word;
    const at = length * size <= word ? inside : pointer(inside);
    const read = { 1: (i: number) => bytes[i] ?? 0, 2: u16, 4: u32, 8: u64 }[size]!;
    return Array.from({ length }, (_, i) => read(at + i * size));
  };
}

/** Whether compressed data of a strip or tile is whole: rejects with `ItemError` if not. */
type Inflate = (data: Uint8Array) => Promise<void>;

/**
 * Checks the first page of a TIFF file. Throws `ItemError`: `unsupported-format` for a kind that is not decoded, and
 * `truncated` or `corrupt` if the file ends before its pixels do, or if deflated data (which has a checksum, which
 * libtiff does not always verify) is damaged.
 */
export async function checkTiff(bytes: Uint8Array, inflate: Inflate): Promise<void> {
  const tag = firstPage(bytes);
  const compression = tag(TAG.compression)?.[0] ?? 1;
  const name = UNSUPPORTED[compression];
  if (name) throw fault('unsupported-format', `TIFF: ${name} compression is not decoded`);
  const samples = tag(TAG.samples)?.[0] ?? 1;
  const tiles = tag(TAG.tileOffsets);
  if (tiles && tag(TAG.planar)?.[0] === 2 && samples > 1)
    throw fault('unsupported-format', 'TIFF: tiles with separate colour planes are not decoded');
  const format = tag(TAG.sampleFormat)?.[0] ?? 1;
  const bits = tag(TAG.bits)?.[0] ?? 1;
  if (format !== 1 && format !== 4)
    throw fault(
      'unsupported-format',
      'TIFF: only unsigned integers are decoded, because other samples have no range of black and white',
    );
  if (![1, 2, 4, 8, 16].includes(bits))
    throw fault('unsupported-format', `TIFF: ${bits} bits per sample are not decoded`);
  const offsets = tiles ?? tag(TAG.stripOffsets) ?? [];
  const sizes = tag(tiles ? TAG.tileBytes : TAG.stripBytes) ?? [];
  const isPlain = (tag(TAG.fillOrder)?.[0] ?? 1) === 1;
  for (const [i, offset] of offsets.entries()) {
    const end = offset + (sizes[i] ?? 0);
    if (end > bytes.length)
      throw fault('truncated', `TIFF: ends after ${bytes.length} bytes; its pixels reach to ${end}`);
    if (DEFLATE.includes(compression) && isPlain && sizes[i]) await inflate(bytes.subarray(offset, end));
  }
}
