// Elementwise operations and resampling as loops over [n, c, h, w], in f64.

import type { Shape } from '../../src/kernels/device/tensor.ts';

/** Builds an array in [n, c, h, w] order from `make(sample, channel, row, column)`. */
export function build(
  [c, n, h, w]: Shape,
  make: (sample: number, channel: number, row: number, column: number) => number,
): Float64Array {
  const out = new Float64Array(c * n * h * w);
  let at = 0;
  for (let i = 0; i < n; i++)
    for (let j = 0; j < c; j++)
      for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) out[at++] = make(i, j, y, x);
  return out;
}

/** Returns the element (sample, channel, row, column) of values in [n, c, h, w] order. */
export const at = (
  values: ArrayLike<number>,
  [c, , h, w]: Shape,
  sample: number,
  channel: number,
  row: number,
  column: number,
): number => values[((sample * c + channel) * h + row) * w + column]!;

/**
 * Upsamples by nearest neighbour. As in PyTorch, row i of the result is row floor(i · f32(h / height)) of x.
 */
export function referenceUpsample(
  x: ArrayLike<number>,
  shape: Shape,
  [height, width]: readonly [number, number],
): Float64Array {
  const [c, n, h, w] = shape;
  const from = (i: number, size: number, newSize: number) =>
    Math.min(Math.floor(Math.fround(i * Math.fround(size / newSize))), size - 1);
  return build([c, n, height, width], (i, j, row, column) =>
    at(x, shape, i, j, from(row, h, height), from(column, w, width)),
  );
}

/** Picks every `stride`-th row and column. */
export function referencePick(x: ArrayLike<number>, shape: Shape, stride: number): Float64Array {
  const [c, n, h, w] = shape;
  const y: Shape = [c, n, Math.ceil(h / stride), Math.ceil(w / stride)];
  return build(y, (i, j, row, column) => at(x, shape, i, j, row * stride, column * stride));
}

/** Averages blocks of 2x2 pixels; an odd last row or column is dropped. */
export function referenceAveragePool2x2(x: ArrayLike<number>, shape: Shape): Float64Array {
  const [c, n, h, w] = shape;
  return build([c, n, Math.floor(h / 2), Math.floor(w / 2)], (i, j, row, column) => {
    const pixel = (dy: number, dx: number) => at(x, shape, i, j, 2 * row + dy, 2 * column + dx);
    return (pixel(0, 0) + pixel(0, 1) + pixel(1, 0) + pixel(1, 1)) / 4;
  });
}

/**
 * Moves channels into blocks of pixels: place (k, l) of a block in channel c comes from x's channel (k·block
 * + l)·channels + c.
 */
export function referenceDepthToSpace(x: ArrayLike<number>, shape: Shape, block: number): Float64Array {
  const [c, n, h, w] = shape;
  const channels = c / block ** 2;
  return build([channels, n, block * h, block * w], (i, j, row, column) => {
    const place = (row % block) * block + (column % block);
    return at(x, shape, i, place * channels + j, Math.floor(row / block), Math.floor(column / block));
  });
}
