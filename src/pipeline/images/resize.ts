// Resizes 8-bit images, bit for bit as Pillow's Image.resize does: networks were trained on images resized with it, and
// for small inputs another resampler changes decisions. Resizing is separable and antialiased (the filter widens with
// the reduction). Each of the two passes rounds to 8 bits, so their order matters.

import { crop, type Pixels } from './pixels.ts';

/** Resampling filters by their usual names. */
export type Filter = 'box' | 'bilinear' | 'bicubic' | 'lanczos';

/** Bits after the binary point of a weight: 32, less 8 for a pixel, less 2 for the overshoot of negative lobes. */
const PRECISION = 32 - 8 - 2;

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** Keys' cubic convolution with a = -0.5. */
function cubic(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
  return 0;
}

/** The kernel of each filter and its radius, in output pixels. */
const FILTERS: Readonly<Record<Filter, { readonly support: number; readonly at: (x: number) => number }>> = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, at: cubic },
  lanczos: { support: 3, at: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** For every output position: the first input position, the number of them, and their weights in fixed point. */
interface Weights {
  readonly first: Int32Array;
  readonly count: Int32Array;
  /** [output, taps], `taps` values per row. */
  readonly values: Int32Array;
  readonly taps: number;
}

function weightsFor(from: number, to: number, filter: Filter): Weights {
  const { support, at } = FILTERS[filter];
  const scale = from / to;
  const widened = Math.max(1, scale);
  const reach = support * widened;
  const taps = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(to);
  const count = new Int32Array(to);
  const values = new Int32Array(to * taps);
  const row = new Float64Array(taps);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - reach + 0.5));
    const length = Math.min(from, Math.trunc(center + reach + 0.5)) - start;
    let total = 0;
    for (let k = 0; k < length; k++) {
      row[k] = at((k + start - center + 0.5) * (1 / widened));
      total += row[k]!;
    }
    for (let k = 0; k < length; k++) {
      const weight = total === 0 ? row[k]! : row[k]! / total;
      values[i * taps + k] = Math.trunc(weight * (1 << PRECISION) + (weight < 0 ? -0.5 : 0.5));
    }
    first[i] = start;
    count[i] = length;
  }
  return { first, count, values, taps };
}

/** The initial value of a sum: half a unit, so that the shift rounds. */
const HALF = 1 << (PRECISION - 1);

const clip8 = (sum: number) => Math.min(255, Math.max(0, sum >> PRECISION));

function horizontal(image: Pixels, width: number, filter: Filter): Pixels {
  const { first, count, values, taps } = weightsFor(image.width, width, filter);
  const { channels, height, data: from } = image;
  const data = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    const line = y * image.width * channels;
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) {
        let sum = HALF;
        let p = line + first[x]! * channels + c;
        for (let k = x * taps, end = k + count[x]!; k < end; k++, p += channels) sum += from[p]! * values[k]!;
        data[(y * width + x) * channels + c] = clip8(sum);
      }
    }
  }
  return { width, height, channels, data };
}

function vertical(image: Pixels, height: number, filter: Filter): Pixels {
  const { first, count, values, taps } = weightsFor(image.height, height, filter);
  const { channels, width, data: from } = image;
  const row = width * channels;
  const data = new Uint8Array(row * height);
  const sums = new Float64Array(row);
  for (let y = 0; y < height; y++) {
    sums.fill(HALF);
    for (let k = 0; k < count[y]!; k++) {
      const weight = values[y * taps + k]!;
      const line = (first[y]! + k) * row;
      for (let i = 0; i < row; i++) sums[i]! += from[line + i]! * weight;
    }
    for (let i = 0; i < row; i++) data[y * row + i] = clip8(sums[i]!);
  }
  return { width, height, channels, data };
}

/**
 * Resizes an image to width x height: horizontally first, unless the height shrinks by more than twice as much as the
 * width. That is the order of Pillow 13; earlier versions never swap, which changes a few pixels of such tall images by 1.
 * Throws `RangeError` if a side is not a positive integer.
 */
export function resize(image: Pixels, width: number, height: number, filter: Filter = 'bicubic'): Pixels {
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1)
    throw new RangeError(`resize: expected sides of 1 or more, got ${width}x${height}`);
  const across = (from: Pixels) => (width === from.width ? from : horizontal(from, width, filter));
  const down = (from: Pixels) => (height === from.height ? from : vertical(from, height, filter));
  const shrink = image.height - height;
  return shrink > 0 && shrink > 2 * (image.width - width) ? across(down(image)) : down(across(image));
}

/** Rounds to the nearest integer, halves to the even one, as Python's round. */
function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  const half = x - down === 0.5;
  return half ? down + (down % 2) : Math.round(x);
}

/** The size to which an image is resized, and the corner of the crop. */
interface Cover {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly top: number;
}

/**
 * Returns how an image is resized so that it just covers width x height, and where the centre is cropped, as torchvision's
 * Resize(side) and CenterCrop(side), with their rounding (the longer side down, the corner of the crop to even).
 */
export function coverOf(image: Pick<Pixels, 'width' | 'height'>, width: number, height: number): Cover {
  const byWidth = image.width * height <= image.height * width;
  const wide = byWidth ? width : Math.max(width, Math.trunc((height * image.width) / image.height));
  const high = byWidth ? Math.max(height, Math.trunc((width * image.height) / image.width)) : height;
  const left = roundHalfEven((wide - width) / 2);
  const top = roundHalfEven((high - height) / 2);
  return { width: wide, height: high, left, top };
}

/**
 * Resizes an image so that it just covers width x height, and crops the centre (`coverOf`). Keeps the aspect ratio. Returns
 * an image of that size as it is.
 */
export function resizeAndCrop(
  image: Pixels,
  width: number,
  height: number,
  filter: Filter = 'bicubic',
): Pixels {
  const cover = coverOf(image, width, height);
  const resized = resize(image, cover.width, cover.height, filter);
  return crop(resized, cover.left, cover.top, width, height);
}

/**
 * Crops an image to a square as ADM, and DiT after it, were trained (Dhariwal and Nichol 2021): halves it by `box` while
 * its shorter side is at least 2 * side, resizes that side to `side` by `bicubic`, and cuts out the centre. Sides round
 * halves to even, the corner of the cut rounds down. Throws `RangeError` if the side is not a positive integer.
 */
export function admCrop(image: Pixels, side: number): Pixels {
  if (!Number.isInteger(side) || side < 1)
    throw new RangeError(`admCrop: expected a side of 1 or more, got ${side}`);
  let halved = image;
  while (Math.min(halved.width, halved.height) >= 2 * side)
    halved = resize(halved, Math.floor(halved.width / 2), Math.floor(halved.height / 2), 'box');
  const scale = side / Math.min(halved.width, halved.height);
  const sized = resize(halved, roundHalfEven(halved.width * scale), roundHalfEven(halved.height * scale));
  const left = Math.floor((sized.width - side) / 2);
  const top = Math.floor((sized.height - side) / 2);
  return crop(sized, left, top, side, side);
}
