// Decoded images as 8-bit pixels, and their conversion to and from the input of a network.

import { clamp } from '../../numbers.ts';

/** An 8-bit image: `data` [height, width, channels], interleaved; 1 channel is grey, 3 are RGB. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly data: Uint8Array;
  /** Bits per sample of the source if they are more than 8; `data` then has the high bytes. */
  readonly bitDepth?: number;
}

/**
 * Writes the grey levels of `count` RGB pixels, which begin at `from` in `rgb`, to `to` from `at`: the luma weights of
 * ITU-R 601 in 16-bit fixed point, rounded as in Pillow's mode L.
 */
export function writeGrey(rgb: Uint8Array, from: number, count: number, to: Uint8Array, at: number): void {
  for (let i = at, p = from; i < at + count; i++, p += 3)
    to[i] =
      (Math.imul(rgb[p]!, 19595) + Math.imul(rgb[p + 1]!, 38470) + Math.imul(rgb[p + 2]!, 7471) + 0x8000) >>
      16;
}

/**
 * Converts RGB to grey (see `writeGrey`), and grey to RGB by repeating it. An image that already has the channels is
 * returned as it is.
 */
export function withChannels(image: Pixels, channels: 1 | 3): Pixels {
  if (image.channels === channels) return image;
  const { width, height } = image;
  const count = width * height;
  const data = new Uint8Array(count * channels);
  if (channels === 1) writeGrey(image.data, 0, count, data, 0);
  else
    for (let i = 0, p = 0; i < count; i++, p += 3) {
      const level = image.data[i]!;
      data[p] = level;
      data[p + 1] = level;
      data[p + 2] = level;
    }
  return { width, height, channels, data };
}

/** Cuts out the part of an image with its top left corner at (left, top). Throws `RangeError` if it is not inside. */
export function crop(image: Pixels, left: number, top: number, width: number, height: number): Pixels {
  if (left === 0 && top === 0 && width === image.width && height === image.height) return image;
  if (left < 0 || top < 0 || left + width > image.width || top + height > image.height)
    throw new RangeError(
      `crop: expected a part of ${image.width}x${image.height} pixels, got ${width}x${height} at (${left}, ${top})`,
    );
  const row = width * image.channels;
  const data = new Uint8Array(row * height);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * image.channels;
    data.set(image.data.subarray(start, start + row), y * row);
  }
  return { width, height, channels: image.channels, data };
}

/** (v / 255 - 0.5) / 0.5 for every byte v, each step rounded to float32 as in torchvision's transforms. */
const NORMALIZED = Float32Array.from({ length: 256 }, (_, v) => {
  const unit = Math.fround(v / 255);
  return Math.fround(Math.fround(unit - 0.5) / 0.5);
});

/** Converts an image to the input of a network: [channels, height, width] in [-1, 1]. */
export function toModelInput(image: Pixels): Float32Array {
  const { channels, data } = image;
  const plane = image.width * image.height;
  const out = new Float32Array(channels * plane);
  for (let c = 0; c < channels; c++)
    for (let i = 0, p = c; i < plane; i++, p += channels) out[c * plane + i] = NORMALIZED[data[p]!]!;
  return out;
}

/** Converts [channels, height, width] in [-1, 1] back to 8 bits, rounded and clipped. */
export function fromModelInput(input: Float32Array, shape: readonly [number, number, number]): Pixels {
  const [channels, height, width] = shape;
  if (channels !== 1 && channels !== 3)
    throw new RangeError(`pixels: expected 1 or 3 channels, got ${channels}`);
  const plane = width * height;
  const data = new Uint8Array(channels * plane);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < plane; i++) {
      const value = Math.round((input[c * plane + i]! * 0.5 + 0.5) * 255);
      data[i * channels + c] = clamp(value, 0, 255);
    }
  return { width, height, channels, data };
}

/** Converts the values of an 8-bit image from [-1, 1] to [0, 1], exactly. */
export const toUnit = (pixels: Float32Array): Float64Array =>
  Float64Array.from(pixels, (v) => Math.round((v + 1) * 127.5) / 255);
