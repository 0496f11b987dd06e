// Decodes the first frame of GIF files. Why not with sharp: it blackens transparent pixels, where PNG files keep the
// colour beneath.

import { fault } from './failures.ts';
import { type FileView, fileView } from './file-view.ts';
import { checkSize, lookedUp } from './palette.ts';
import type { Pixels } from './pixels.ts';

const EXTENSION = 0x21;
const IMAGE = 0x2c;
const GRAPHIC_CONTROL = 0xf9;

/** The most codes of LZW data: they have at most 12 bits. */
const MAX_CODES = 4096;

/** Joins the sub-blocks that begin at an offset; `end` is the offset after their terminator. */
function subBlocks(
  bytes: Uint8Array,
  view: FileView,
  start: number,
): { readonly data: Uint8Array; readonly end: number } {
  let end = start;
  let length = 0;
  for (let size = view.u8(end); size > 0; size = view.u8(end)) {
    length += size;
    end += size + 1;
  }
  const data = new Uint8Array(length);
  for (let at = start, to = 0; at < end; at += bytes[at]! + 1) {
    data.set(bytes.subarray(at + 1, at + 1 + bytes[at]!), to);
    to += bytes[at]!;
  }
  return { data, end: end + 1 };
}

/**
 * Decodes LZW data with codes of `bits` + 1 bits at first to `count` indices. Throws `ItemError` `truncated` if the data
 * ends before, and `corrupt` for a code that does not exist yet.
 */
function lzwDecoded(data: Uint8Array, bits: number, count: number): Uint8Array {
  const clear = 1 << bits;
  const end = clear + 1;
  const prefix = new Uint16Array(MAX_CODES);
  const last = Uint8Array.from({ length: MAX_CODES }, (_, code) => code & 0xff);
  const lengths = new Uint16Array(MAX_CODES).fill(1);
  const out = new Uint8Array(count);
  let written = 0;
  let codes = end + 1;
  let width = bits + 1;
  let before = -1;
  let buffer = 0;
  let held = 0;
  let at = 0;
  while (written < count) {
    while (held < width) {
      if (at === data.length)
        throw fault('truncated', `GIF: the pixels end early, ${written} of ${count} are there`);
      buffer |= data[at++]! << held;
      held += 8;
    }
    const code = buffer & ((1 << width) - 1);
    buffer >>>= width;
    held -= width;
    if (code === clear) {
      codes = end + 1;
      width = bits + 1;
      before = -1;
      continue;
    }
    if (code === end) throw fault('truncated', `GIF: the pixels end early, ${written} of ${count} are there`);
    const isNew = code === codes && before >= 0; // the string before, and its own first index
    if (code > end && code >= codes && !isNew) throw fault('corrupt', `GIF: code ${code} has no meaning yet`);
    if (before >= 0 && codes < MAX_CODES) {
      let first = isNew ? before : code;
      while (first > end) first = prefix[first]!;
      prefix[codes] = before;
      last[codes] = last[first]!;
      lengths[codes] = lengths[before]! + 1;
      codes++;
      if (codes === 1 << width && width < 12) width++;
    } else if (isNew) throw fault('corrupt', `GIF: code ${code} has no meaning yet`);
    const length = lengths[code]!;
    for (let to = written + length - 1, from = code; to >= written; to--, from = prefix[from]!)
      if (to < count) out[to] = last[from]!;
    written += length;
    before = code;
  }
  return out;
}

/** Returns the row of the frame that the k-th stored row is. */
function* interlacedRows(height: number): Generator<number> {
  for (const [start, step] of [
    [0, 8],
    [4, 8],
    [2, 4],
    [1, 2],
  ] as const)
    for (let row = start; row < height; row += step) yield row;
}

/** A frame: where it is on the screen, its palette, and where its data begins. */
interface Frame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly palette: Uint8Array | undefined;
  readonly interlaced: boolean;
  /** The index around a frame that does not fill the screen: the transparent one if there is one. */
  readonly around: number;
  readonly data: number;
}

/** Reads a palette of which a flags byte tells the size; undefined if there is none. */
function paletteAt(bytes: Uint8Array, view: FileView, flags: number, at: number): Uint8Array | undefined {
  if ((flags & 0x80) === 0) return undefined;
  const size = 3 << ((flags & 7) + 1);
  view.u8(at + size - 1);
  return bytes.subarray(at, at + size);
}

function firstFrame(bytes: Uint8Array, view: FileView): Frame {
  const screen = paletteAt(bytes, view, view.u8(10), 13);
  let at = 13 + (screen?.length ?? 0);
  let around = 0;
  for (;;) {
    const kind = view.u8(at);
    if (kind === EXTENSION) {
      const hasTransparency = view.u8(at + 1) === GRAPHIC_CONTROL && (view.u8(at + 3) & 1) === 1;
      if (hasTransparency) around = view.u8(at + 6);
      at = subBlocks(bytes, view, at + 2).end;
    } else if (kind === IMAGE) {
      const flags = view.u8(at + 9);
      const own = paletteAt(bytes, view, flags, at + 10);
      return {
        left: view.u16(at + 1),
        top: view.u16(at + 3),
        width: view.u16(at + 5),
        height: view.u16(at + 7),
        palette: own ?? screen,
        interlaced: (flags & 0x40) !== 0,
        around,
        data: at + 10 + (own?.length ?? 0),
      };
    } else if (kind === 0) at++;
    else throw fault('corrupt', `GIF: expected an image, got a block of kind ${kind}`);
  }
}

/** Grey levels as the palette of an image that has none. */
const GREYS = Uint8Array.from({ length: 256 * 3 }, (_, i) => Math.floor(i / 3));

/**
 * Decodes the first frame of a GIF file to RGB. Transparent pixels, and those around a frame smaller than the screen, get
 * the colour that the palette has beneath, as in Pillow's `convert('RGB')`. Throws `ItemError` `truncated`, `corrupt`, or,
 * if the header announces more than `maxPixels`, `too-large`.
 */
export function decodeGif(bytes: Uint8Array, maxPixels: number): Pixels {
  const view = fileView(bytes, 'GIF');
  checkSize('GIF', Math.max(1, view.u16(6)), Math.max(1, view.u16(8)), maxPixels);
  const frame = firstFrame(bytes, view);
  const width = Math.max(view.u16(6), frame.left + frame.width);
  const height = Math.max(view.u16(8), frame.top + frame.height);
  checkSize('GIF', width, height, maxPixels);
  const bits = view.u8(frame.data);
  if (bits < 1 || bits > 11) throw fault('corrupt', `GIF: codes of ${bits} bits do not exist`);
  const { data } = subBlocks(bytes, view, frame.data + 1);
  const indices = lzwDecoded(data, bits, frame.width * frame.height);
  const fills = frame.width === width && frame.height === height;
  const screen = fills && !frame.interlaced ? indices : new Uint8Array(width * height).fill(frame.around);
  if (screen !== indices) {
    const rows = frame.interlaced ? interlacedRows(frame.height) : Array(frame.height).keys();
    let from = 0;
    for (const row of rows) {
      const to = (frame.top + row) * width + frame.left;
      screen.set(indices.subarray(from, from + frame.width), to);
      from += frame.width;
    }
  }
  return { width, height, channels: 3, data: lookedUp(screen, frame.palette ?? GREYS, 'GIF') };
}
