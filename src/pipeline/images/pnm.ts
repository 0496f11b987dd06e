// Decodes the PNM formats (PBM, PGM, PPM, plain and raw, and PAM), whose headers are text.

import { latin1 } from './bytes.ts';
import { fault } from './failures.ts';
import { checkSize } from './palette.ts';
import type { Pixels } from './pixels.ts';

interface Header {
  readonly width: number;
  readonly height: number;
  /** Samples per pixel: alpha, of PAM, is the second or fourth. */
  readonly samples: number;
  /** The sample of white. */
  readonly maxval: number;
  /** Whether samples are numbers in text. */
  readonly plain: boolean;
  /** Whether it is a bitmap, in which 1 is black. */
  readonly bitmap: boolean;
  /** Offset of the samples. */
  readonly data: number;
}

/** The longest number that is read. */
const LONGEST = 10;

const isSpace = (byte: number | undefined) => byte === 32 || (byte !== undefined && byte >= 9 && byte <= 13);
const HASH = 35;
const NEWLINE = 10;
const RETURN = 13;

/** Reads words of text separated by white space; `#` begins a comment that goes to the end of its line. */
class Words {
  readonly #bytes: Uint8Array;
  /** Offset after the last word. */
  at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  /** Goes to the next byte that is not white space or part of a comment. */
  skip(): void {
    const bytes = this.#bytes;
    for (; isSpace(bytes[this.at]) || bytes[this.at] === HASH; this.at++)
      if (bytes[this.at] === HASH)
        while (this.at + 1 < bytes.length && bytes[this.at] !== NEWLINE && bytes[this.at] !== RETURN)
          this.at++;
    if (this.at >= bytes.length)
      throw fault('truncated', `PNM: ends after ${bytes.length} bytes, before its last number`);
  }

  /** Returns the next number. Throws `ItemError` if there is none. */
  number(): number {
    this.skip();
    const start = this.at;
    let value = 0;
    for (; this.at < this.#bytes.length; this.at++) {
      const digit = this.#bytes[this.at]! - 48;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    const length = this.at - start;
    if (length === 0 || length > LONGEST) throw fault('corrupt', `PNM: expected a number at byte ${start}`);
    return value;
  }
}

/** Reads the header of PAM: lines of a name and a value, the last one ENDHDR. */
function readPam(bytes: Uint8Array): Header {
  const text = latin1(bytes.subarray(0, 4096));
  const end = /\nENDHDR[ \t]*\n/.exec(text);
  if (!end) throw fault('truncated', 'PNM: the header has no end');
  const value = (name: string): number => {
    const found = new RegExp(`\\n${name}[ \\t]+(\\d{1,${LONGEST}})[ \\t]*\\n`).exec(
      text.slice(0, end.index + 1),
    );
    if (!found) throw fault('corrupt', `PNM: expected ${name} in the header`);
    return Number(found[1]);
  };
  return {
    width: value('WIDTH'),
    height: value('HEIGHT'),
    samples: value('DEPTH'),
    maxval: value('MAXVAL'),
    plain: false,
    bitmap: false,
    data: end.index + end[0].length,
  };
}

function readHeader(bytes: Uint8Array): Header {
  const kind = bytes[1]! - 48;
  if (kind === 7) return readPam(bytes);
  const words = new Words(bytes, 2);
  const width = words.number();
  const height = words.number();
  const bitmap = kind === 1 || kind === 4;
  const maxval = bitmap ? 1 : words.number();
  const samples = kind === 3 || kind === 6 ? 3 : 1;
  return { width, height, samples, maxval, plain: kind < 4, bitmap, data: words.at + 1 };
}

/** Rounds to the nearest integer, halves to the even one, as Python's round. */
const roundHalfEven = (x: number) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/** Returns the 8-bit value of every sample: stretched to 8 bits, or to 16 bits of which the high byte stays. */
function valuesOf(maxval: number): Uint8Array {
  const largest = maxval > 255 ? 65535 : 255;
  const shift = maxval > 255 ? 8 : 0;
  return Uint8Array.from({ length: maxval + 1 }, (_, v) => roundHalfEven((v / maxval) * largest) >> shift);
}

/** Reads the samples of a bitmap of packed bits: 1 is black. */
function readBits(bytes: Uint8Array, { width, height, data }: Header): Uint8Array {
  const stride = Math.ceil(width / 8);
  checkLength(bytes, data + stride * height);
  const out = new Uint8Array(width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      out[y * width + x] = (bytes[data + y * stride + (x >> 3)]! >> (7 - (x & 7))) & 1 ? 0 : 255;
  return out;
}

function checkLength(bytes: Uint8Array, expected: number): void {
  if (bytes.length < expected)
    throw fault('truncated', `PNM: ends after ${bytes.length} bytes, expected ${expected}`);
}

/** Returns a function that reads one sample after the other. */
function sampleReader(bytes: Uint8Array, header: Header): () => number {
  const { plain, bitmap, maxval, data } = header;
  if (plain) {
    const words = new Words(bytes, data);
    if (!bitmap) return () => words.number();
    return () => {
      words.skip(); // the digits of a plain bitmap need no space between them
      const digit = bytes[words.at++]! - 48;
      if (digit !== 0 && digit !== 1) throw fault('corrupt', `PNM: expected 0 or 1 at byte ${words.at - 1}`);
      return 1 - digit;
    };
  }
  let at = data;
  if (maxval < 256) return () => bytes[at++]!;
  return () => {
    at += 2;
    return bytes[at - 2]! * 256 + bytes[at - 1]!;
  };
}

/**
 * Decodes a PNM file to grey or RGB: the range of samples, which the header tells, is stretched to 8 bits, or to 16 bits
 * of which the high byte is kept. Alpha is dropped. Throws `ItemError` `truncated`, `corrupt`, `unsupported-format` for
 * more than 4 samples per pixel, or, if the header announces more than `maxPixels`, `too-large`.
 */
export function decodePnm(bytes: Uint8Array, maxPixels: number): Pixels {
  const header = readHeader(bytes);
  const { width, height, samples, maxval, plain, bitmap } = header;
  checkSize('PNM', width, height, maxPixels);
  if (maxval < 1 || maxval > 65535)
    throw fault('corrupt', `PNM: expected a largest value of 1 to 65535, got ${maxval}`);
  if (samples < 1 || samples > 4)
    throw fault('unsupported-format', `PNM: ${samples} samples per pixel are not decoded`);
  if (bitmap && !plain) return { width, height, channels: 1, data: readBits(bytes, header) };
  const count = width * height * samples;
  checkLength(
    bytes,
    header.data + (plain ? (bitmap ? count : 2 * count - 1) : count * (maxval > 255 ? 2 : 1)),
  );
  const channels = samples > 2 ? 3 : 1;
  const data = new Uint8Array(width * height * channels);
  const values = valuesOf(maxval);
  const next = sampleReader(bytes, header);
  for (let i = 0, to = 0; i < count; i++) {
    const sample = next();
    if (sample > maxval) throw fault('corrupt', `PNM: a value of ${sample} exceeds the largest, ${maxval}`);
    if (i % samples < channels) data[to++] = values[sample]!;
  }
  const pixels: Pixels = { width, height, channels, data };
  return maxval > 255 ? { ...pixels, bitDepth: 16 } : pixels;
}
