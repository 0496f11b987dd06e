// Resizes 8-bit images, bit for bit as Pillow's Image.resize does: networks were trained on images resized with it, and
// for small inputs another resampler changes decisions. Resizing is separable and antialiased (the filter widens with
// the reduction). Each of the two passes rounds to 8 bits, so their order matters.

import { crop, type Pixels, withChannels, writeGrey } from './pixels.ts';

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

/** Positions from `start` to before `end`. */
interface Range {
  readonly start: number;
  readonly end: number;
}

/** Returns the input positions that a range of output positions needs. */
const reachOf = ({ first, count }: Weights, { start, end }: Range): Range => ({
  start: first[start]!,
  end: first[end - 1]! + count[end - 1]!,
});

/** Rows that are resized together, so that a weight is loaded once for all of them. */
const ROWS = 4;

/**
 * Adds up the weighted samples of `ROWS` rows at once: those of the first row are at `at`, `at + step` and so on in `from`,
 * those of the next rows `row` further each. The weights are `values` from `start` to `end`. Sums are integers of 32 bits,
 * as in Pillow.
 */
function sumRows(
  from: Uint8Array,
  at: number,
  step: number,
  row: number,
  values: Int32Array,
  start: number,
  end: number,
  sums: Int32Array,
): void {
  const row2 = 2 * row;
  const row3 = 3 * row;
  let sum1 = HALF;
  let sum2 = HALF;
  let sum3 = HALF;
  let sum4 = HALF;
  for (let k = start, p = at; k < end; k++, p += step) {
    const weight = values[k]!;
    sum1 = (sum1 + Math.imul(from[p]!, weight)) | 0;
    sum2 = (sum2 + Math.imul(from[p + row]!, weight)) | 0;
    sum3 = (sum3 + Math.imul(from[p + row2]!, weight)) | 0;
    sum4 = (sum4 + Math.imul(from[p + row3]!, weight)) | 0;
  }
  sums[0] = sum1;
  sums[1] = sum2;
  sums[2] = sum3;
  sums[3] = sum4;
}

/**
 * Resizes rows of an image, those in `rows`, and returns the columns in `columns` of the result, with `channels` channels
 * (1 or those of the image). `left` is the position among the input positions of the weights that the image begins with.
 * Sums are integers of 32 bits, as in Pillow.
 */
function horizontal(
  image: Pixels,
  weights: Weights,
  columns: Range,
  rows: Range,
  channels: 1 | 3,
  left = 0,
): Pixels {
  const { first, values, taps } = weights;
  const width = columns.end - columns.start;
  const height = rows.end - rows.start;
  const row = width * channels;
  const data = new Uint8Array(row * height);
  const reach = reachOf(weights, columns);
  const toGrey = channels < image.channels;
  const line = reach.end - reach.start;
  const grey = new Uint8Array(toGrey ? line * ROWS : 0);
  const sums = new Int32Array(ROWS);
  const inputRow = image.width * image.channels;
  for (let y = 0; y < height; y += ROWS) {
    const count = Math.min(ROWS, height - y);
    const block = (rows.start + y) * inputRow + (reach.start - left) * image.channels;
    if (toGrey)
      for (let r = 0; r < count; r++) writeGrey(image.data, block + r * inputRow, line, grey, r * line);
    const from = toGrey ? grey : image.data;
    const step = channels;
    const distance = toGrey ? line : inputRow;
    for (let x = 0; x < width; x++) {
      const column = columns.start + x;
      const start = column * taps;
      const end = start + weights.count[column]!;
      const at = (toGrey ? 0 : block) + (first[column]! - reach.start) * step;
      for (let c = 0; c < channels; c++) {
        const to = y * row + x * channels + c;
        if (count === ROWS) {
          sumRows(from, at + c, step, distance, values, start, end, sums);
          for (let r = 0; r < ROWS; r++) data[to + r * row] = clip8(sums[r]!);
        } else
          for (let r = 0; r < count; r++) {
            sumRows(from, at + c + r * distance, step, 0, values, start, end, sums);
            data[to + r * row] = clip8(sums[0]!);
          }
      }
    }
  }
  return { width, height, channels, data };
}

/**
 * Resizes columns of an image, those in `columns`, and returns the rows in `rows` of the result. `top` is the position
 * among the input positions of the weights that the image begins with.
 */
function vertical(image: Pixels, weights: Weights, columns: Range, rows: Range, top = 0): Pixels {
  const { first, count, values, taps } = weights;
  const { channels, data: from } = image;
  const width = columns.end - columns.start;
  const height = rows.end - rows.start;
  const row = width * channels;
  const data = new Uint8Array(row * height);
  const sums = new Int32Array(row);
  for (let y = 0; y < height; y++) {
    const of = rows.start + y;
    sums.fill(HALF);
    for (let k = 0; k < count[of]!; k++) {
      const weight = values[of * taps + k]!;
      const line = ((first[of]! - top + k) * image.width + columns.start) * channels;
      for (let i = 0; i < row; i++) sums[i] = sums[i]! + Math.imul(from[line + i]!, weight);
    }
    for (let i = 0; i < row; i++) data[y * row + i] = clip8(sums[i]!);
  }
  return { width, height, channels, data };
}

/** A rectangle of a resized image. */
interface Part {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

const all = (size: number): Range => ({ start: 0, end: size });

/**
 * Converts an image to `channels` channels and resizes it to width x height as `resize` does, but computes and returns
 * only a part of the result.
 */
function resizePart(
  image: Pixels,
  width: number,
  height: number,
  filter: Filter,
  part: Part,
  channels: 1 | 3,
): Pixels {
  // Repeated grey levels are resized once.
  if (image.channels < channels)
    return withChannels(resizePart(image, width, height, filter, part, 1), channels);
  const columns = { start: part.left, end: part.left + part.width };
  const rows = { start: part.top, end: part.top + part.height };
  if (width === image.width && height === image.height)
    return withChannels(crop(image, part.left, part.top, part.width, part.height), channels);
  const across = weightsFor(image.width, width, filter);
  const down = weightsFor(image.height, height, filter);
  if (width === image.width) return vertical(withChannels(image, channels), down, columns, rows);
  if (height === image.height) return horizontal(image, across, columns, rows, channels);
  const shrink = image.height - height;
  if (shrink > 0 && shrink > 2 * (image.width - width)) {
    const reach = reachOf(across, columns);
    const high = vertical(withChannels(image, channels), down, reach, rows);
    return horizontal(high, across, columns, all(part.height), channels, reach.start);
  }
  const reach = reachOf(down, rows);
  const wide = horizontal(image, across, columns, reach, channels);
  return vertical(wide, down, all(part.width), rows, reach.start);
}

/**
 * Resizes an image to width x height: horizontally first, unless the height shrinks by more than twice as much as the
 * width. That is the order of Pillow 13; earlier versions never swap, which changes a few pixels of such tall images by 1.
 * Throws `RangeError` if a side is not a positive integer.
 */
export function resize(image: Pixels, width: number, height: number, filter: Filter = 'bicubic'): Pixels {
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1)
    throw new RangeError(`resize: expected sides of 1 or more, got ${width}x${height}`);
  return resizePart(image, width, height, filter, { left: 0, top: 0, width, height }, image.channels);
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
  channels: 1 | 3 = image.channels,
): Pixels {
  const cover = coverOf(image, width, height);
  return resizePart(image, cover.width, cover.height, filter, { ...cover, width, height }, channels);
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
