// Checks pixels that come from the caller's memory. Nothing is guessed: a model does not fail on values in the wrong
// range, but returns a confident, wrong label.

import type { Model } from '../../graph/model.ts';
import { clamp } from '../../numbers.ts';
import { fault } from './failures.ts';
import type { RawImage } from './image-input.ts';
import type { Pixels } from './pixels.ts';

/** Float values may exceed a range of length 1 by half a grey level, which rounding to 8 bits removes. */
const SLACK = 0.5 / 255;

/** Model pixels may exceed [-1, 1] by half a grey level, as after attacks and resampling in floats. */
const TOLERANCE = 2 * SLACK;

interface Extent {
  readonly min: number;
  readonly max: number;
  /** Index of the first NaN or infinite value, or -1. */
  readonly broken: number;
}

function extentOf(values: ArrayLike<number>): Extent {
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!Number.isFinite(value)) return { min, max, broken: i };
    if (value < min) min = value;
    if (value > max) max = value;
  }
  return { min, max, broken: -1 };
}

/** Formats a value for messages, with at most four significant digits. */
const shown = (value: number) => String(Number(value.toPrecision(4)));

const invalid = (message: string) => fault('invalid-pixels', message);

function finiteExtent(values: ArrayLike<number>): Extent {
  const extent = extentOf(values);
  if (extent.broken >= 0)
    throw invalid(`expected finite values, got ${values[extent.broken]} at index ${extent.broken}`);
  return extent;
}

/** Rounds float values to bytes; the ends of the range are black and white. */
function quantised(data: Float32Array | Float64Array, range: RawImage['range']): Uint8Array {
  const { min, max } = finiteExtent(data);
  const seen = `values from ${shown(min)} to ${shown(max)}`;
  if (range === undefined) {
    const likely = min < 0 ? '[-1, 1]' : max <= 1 ? '[0, 1]' : '[0, 255]';
    throw invalid(
      `expected floats with their range, got ${seen} and no range; say which values are black and white, such as range: ${likely}`,
    );
  }
  const [low, high] = range;
  if (!(Number.isFinite(low) && Number.isFinite(high) && low < high))
    throw invalid(`expected a range [low, high] of finite numbers with low < high, got [${low}, ${high}]`);
  const slack = SLACK * (high - low);
  if (min < low - slack || max > high + slack)
    throw invalid(
      `expected values in the range [${low}, ${high}], got ${seen}; clip them, or correct the range`,
    );
  return Uint8Array.from(data, (value) => clamp(Math.round(((value - low) / (high - low)) * 255), 0, 255));
}

function bytesOf({ data, range }: RawImage): Uint8Array {
  if (data instanceof Float32Array || data instanceof Float64Array) return quantised(data, range);
  if (range !== undefined)
    throw invalid('expected a range with floats only, got one with integers; leave it out, or pass floats');
  if (data instanceof Uint16Array) return Uint8Array.from(data, (value) => value >> 8);
  if (data instanceof Uint8Array) return data;
  if (data instanceof Uint8ClampedArray) return new Uint8Array(data.buffer, data.byteOffset, data.length);
  const kind = Object.prototype.toString.call(data).slice(8, -1);
  throw invalid(
    `expected data as Uint8Array, Uint8ClampedArray, Uint16Array, Float32Array or Float64Array, got ${kind}`,
  );
}

/** Drops alpha: keeps 1 of 1 or 2 channels, and 3 of 3 or 4. */
function withoutAlpha(data: Uint8Array, channels: number): Uint8Array {
  if (channels === 1 || channels === 3) return data;
  const kept = channels - 1;
  const out = new Uint8Array((data.length / channels) * kept);
  for (let from = 0, to = 0; to < out.length; from += channels)
    for (let c = 0; c < kept; c++) out[to++] = data[from + c]!;
  return out;
}

/**
 * Converts pixels in memory to 8 bits without alpha, as files are decoded. Throws `ItemError` `invalid-pixels` for invalid
 * sizes, lengths, types or values, and `too-large` for more than `maxPixels`.
 */
export function rawPixels(image: RawImage, maxPixels: number): Pixels {
  const { data, width, height, channels = 4 } = image;
  if (![width, height].every((side) => Number.isInteger(side) && side > 0))
    throw invalid(`expected a width and a height of 1 or more, got ${width} and ${height}`);
  if (![1, 2, 3, 4].includes(channels)) throw invalid(`expected 1 to 4 channels, got ${channels}`);
  if (width * height > maxPixels)
    throw fault('too-large', `${width}x${height} pixels; at most ${maxPixels} are read`);
  const expected = width * height * channels;
  if (data.length !== expected)
    throw invalid(
      `expected ${expected} values (${width} x ${height} pixels of ${channels} channels), got ${data.length}`,
    );
  const pixels: Pixels = {
    width,
    height,
    channels: channels > 2 ? 3 : 1,
    data: withoutAlpha(bytesOf(image), channels),
  };
  return data instanceof Uint16Array ? { ...pixels, bitDepth: 16 } : pixels;
}

/**
 * Checks that pixels for a model fit its input shape [c, h, w], are finite, and are in [-1, 1]. Values in [0, 1] are refused
 * too if they can be recognised: if the smallest value is exactly 0, it is a black pixel of that range, because 8-bit
 * pixels in [-1, 1] are never exactly 0 (127.5 is not a byte). Throws `ItemError` `invalid-pixels`.
 */
export function checkPixels(pixels: Float32Array, shape: Model['inputShape']): void {
  const [channels, height, width] = shape;
  const expected = channels * height * width;
  if (!(pixels instanceof Float32Array)) throw invalid('expected pixels as a Float32Array');
  if (pixels.length !== expected)
    throw invalid(
      `expected ${expected} values (${channels} x ${height} x ${width}), got ${pixels.length}; imageFrom({ data, width, height, channels }) resizes`,
    );
  const { min, max } = finiteExtent(pixels);
  const inRange = min >= -1 - TOLERANCE && max <= 1 + TOLERANCE;
  if (inRange && !(min === 0 && max > 0)) return;
  const range = min < 0 ? `[${shown(min)}, ${shown(max)}]` : max <= 1 ? '[0, 1]' : '[0, 255]';
  throw invalid(
    `expected values in [-1, 1], got values from ${shown(min)} to ${shown(max)}; scale them, or use imageFrom({ data, width, height, channels, range: ${range} })`,
  );
}
