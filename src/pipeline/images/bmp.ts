// Decodes BMP files (Windows bitmaps, and OS/2's): 1, 4, 8, 16, 24 and 32 bits, run-length encoded, with
// bit masks, bottom-up and top-down.

import { fault } from './failures.ts';
import { type FileView, fileView } from './file-view.ts';
import { checkSize, lookedUp } from './palette.ts';
import type { Pixels } from './pixels.ts';

const FILE_HEADER = 14;

/** The header of OS/2's version 1, with sides of 16 bits and palettes of 3 bytes per colour. */
const CORE_HEADER = 12;

/** The header of OS/2's version 2, which begins as Windows' do but has other compressions than theirs. */
const OS2_HEADER = 64;

/** Sizes of the headers that are read: Windows' of versions 3, 3 with masks, 4 and 5, and OS/2's. */
const INFO_HEADERS = [40, 52, 56, OS2_HEADER, 108, 124];

type Compression = 'none' | 'RLE8' | 'RLE4' | 'masks';

/** The compressions by their numbers; 4 and 5 are JPEG and PNG data, which only printers take. */
const COMPRESSIONS: Readonly<Record<number, Compression>> = {
  0: 'none',
  1: 'RLE8',
  2: 'RLE4',
  3: 'masks',
  6: 'masks',
};

/** The bits per pixel that each compression may have. */
const BITS: Readonly<Record<Compression, readonly number[]>> = {
  none: [1, 4, 8, 16, 24, 32],
  RLE8: [8],
  RLE4: [4],
  masks: [16, 24, 32],
};

interface Header {
  readonly width: number;
  readonly height: number;
  readonly topDown: boolean;
  readonly bits: number;
  readonly compression: Compression;
  /** Red, green, blue. */
  readonly masks: readonly [number, number, number];
  /** Offset and bytes per colour of the palette, and its number of colours. */
  readonly palette: { readonly at: number; readonly step: 3 | 4; readonly colours: number };
  readonly data: number;
}

/** The masks of images that have none, by their bits. */
const DEFAULT_MASKS: Readonly<Record<number, Header['masks']>> = {
  16: [0x7c00, 0x3e0, 0x1f],
  32: [0xff0000, 0xff00, 0xff],
};
const NO_MASKS = [0, 0, 0] as const;

function readHeader(view: FileView): Header {
  const size = view.u32(FILE_HEADER);
  const isCore = size === CORE_HEADER;
  if (!isCore && !INFO_HEADERS.includes(size))
    throw fault('unsupported-format', `BMP: a header of ${size} bytes is not read`);
  const signedHeight = isCore ? view.u16(20) : view.i32(22);
  const bits = isCore ? view.u16(24) : view.u16(28);
  const number = isCore ? 0 : view.u32(30);
  const compression = COMPRESSIONS[number];
  if (compression === undefined || (size === OS2_HEADER && number > 2))
    throw fault('unsupported-format', `BMP: compression ${number} is not decoded`);
  const isFilled = compression === 'masks';
  const stored = isFilled ? ([view.u32(54), view.u32(58), view.u32(62)] as const) : NO_MASKS;
  const masks = stored.some(Boolean) ? stored : (DEFAULT_MASKS[bits] ?? NO_MASKS);
  const step = isCore ? 3 : 4;
  const used = isCore ? 0 : view.u32(46);
  const colours = bits > 8 ? 0 : Math.min(used || 1 << bits, 1 << bits);
  const afterMasks = isFilled && size === 40 ? (number === 6 ? 16 : 12) : 0;
  const at = FILE_HEADER + size + afterMasks;
  // Some writers forget the palette in the offset of the pixels.
  const offset = view.u32(10);
  const data = offset <= at ? at + step * colours : offset;
  return {
    width: isCore ? view.u16(18) : view.i32(18),
    height: Math.abs(signedHeight),
    topDown: signedHeight < 0,
    bits,
    compression,
    masks,
    palette: { at, step, colours },
    data,
  };
}

/** Reads the palette, which has blue first, as RGB. */
function readPalette(bytes: Uint8Array, { at, step, colours }: Header['palette']): Uint8Array {
  const out = new Uint8Array(colours * 3);
  for (let i = 0; i < colours; i++)
    for (let c = 0; c < 3; c++) out[i * 3 + c] = bytes[at + i * step + 2 - c] ?? 0;
  return out;
}

/** Undoes run-length encoding: returns indices, rows from bottom to top. Pixels that are skipped have index 0. */
function runsDecoded(view: FileView, { width, height, data, compression }: Header): Uint8Array {
  const out = new Uint8Array(width * height);
  const halves = compression === 'RLE4';
  /** The index at a position of a run or of literal pixels. */
  const indexOf = (at: number, k: number) => {
    if (!halves) return view.u8(at + k);
    const pair = view.u8(at + (k >> 1));
    return k % 2 === 0 ? pair >> 4 : pair & 15;
  };
  let at = data;
  let x = 0;
  let y = 0;
  while (y < height) {
    const count = view.u8(at);
    const value = view.u8(at + 1);
    at += 2;
    if (count > 0) {
      for (let k = 0; k < count && x < width; k++, x++)
        out[y * width + x] = halves ? (k % 2 === 0 ? value >> 4 : value & 15) : value;
    } else if (value === 0) {
      x = 0;
      y++;
    } else if (value === 1) break;
    else if (value === 2) {
      x += view.u8(at);
      y += view.u8(at + 1);
      at += 2;
      if (x > width || y > height) throw fault('corrupt', 'BMP: a skip leads out of the image');
    } else {
      if (x + value > width) throw fault('corrupt', 'BMP: more pixels than a row has');
      for (let k = 0; k < value; k++, x++) out[y * width + x] = indexOf(at, k);
      const size = halves ? (value + 1) >> 1 : value;
      at += size + (size & 1);
    }
  }
  return out;
}

/** Reads indices of 1, 4 or 8 bits, rows as stored. */
function readIndices(bytes: Uint8Array, { width, height, bits, data }: Header, stride: number): Uint8Array {
  const out = new Uint8Array(width * height);
  const mask = 2 ** bits - 1;
  for (let y = 0; y < height; y++) {
    const line = data + y * stride;
    for (let x = 0; x < width; x++) {
      const bit = x * bits;
      out[y * width + x] = (bytes[line + (bit >> 3)]! >> (8 - bits - (bit & 7))) & mask;
    }
  }
  return out;
}

/** Reads colours of 16, 24 or 32 bits as RGB, rows as stored. Fewer than 8 bits are stretched and rounded down, as in Pillow. */
function readColours(bytes: Uint8Array, header: Header, stride: number): Uint8Array {
  const { width, height, bits, data, masks } = header;
  const out = new Uint8Array(width * height * 3);
  const step = bits >> 3;
  const channels = masks.map((mask) => {
    const shift = mask === 0 ? 0 : 31 - Math.clz32(mask & -mask);
    return { mask, shift, largest: mask >>> shift };
  });
  for (let y = 0, to = 0; y < height; y++) {
    let at = data + y * stride;
    for (let x = 0; x < width; x++, at += step) {
      if (bits === 24) {
        out[to++] = bytes[at + 2]!;
        out[to++] = bytes[at + 1]!;
        out[to++] = bytes[at]!;
        continue;
      }
      let pixel = bytes[at]! | (bytes[at + 1]! << 8);
      if (bits === 32) pixel |= (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
      for (const { mask, shift, largest } of channels)
        out[to++] = largest === 0 ? 0 : Math.floor((((pixel & mask) >>> shift) * 255) / largest);
    }
  }
  return out;
}

/** Turns rows from bottom to top around, in place. */
function flipRows(data: Uint8Array, rowBytes: number): void {
  const height = data.length / rowBytes;
  for (let y = 0; y < height >> 1; y++) {
    const above = data.slice(y * rowBytes, (y + 1) * rowBytes);
    const mirrored = (height - 1 - y) * rowBytes;
    data.copyWithin(y * rowBytes, mirrored, mirrored + rowBytes);
    data.set(above, mirrored);
  }
}

/**
 * Decodes a BMP file to RGB. Alpha is dropped. Throws `ItemError` `truncated`, `corrupt`, `unsupported-format` for JPEG
 * or PNG data inside, or, if the header announces more than `maxPixels`, `too-large`.
 */
export function decodeBmp(bytes: Uint8Array, maxPixels: number): Pixels {
  const view = fileView(bytes, 'BMP');
  const header = readHeader(view);
  const { width, height, bits, compression } = header;
  checkSize('BMP', width, height, maxPixels);
  const isRuns = compression === 'RLE8' || compression === 'RLE4';
  if (!BITS[compression].includes(bits))
    throw fault('unsupported-format', `BMP: ${bits} bits per pixel with compression ${compression}`);
  if (isRuns && header.topDown) throw fault('corrupt', 'BMP: run-length encoded rows go from bottom to top');
  const stride = Math.ceil((width * bits) / 32) * 4;
  // The padding of the last row may be missing.
  if (!isRuns) view.u8(header.data + (height - 1) * stride + Math.ceil((width * bits) / 8) - 1);
  const palette = readPalette(bytes, header.palette);
  const indices = isRuns ? runsDecoded(view, header) : bits <= 8 && readIndices(bytes, header, stride);
  const data = indices ? lookedUp(indices, palette, 'BMP') : readColours(bytes, header, stride);
  if (!header.topDown) flipRows(data, width * 3);
  return { width, height, channels: 3, data };
}
