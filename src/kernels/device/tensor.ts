// The layout of activations that every kernel reads and writes.
//
// Activations are channel-major. Shape [c, n, h, w] is stored as c rows of n·h·w values; each row is padded
// to a multiple of 4 (its pitch). As a consequence
//   - every dense layer is one GEMM `out[M][cols] = weight[K][M]ᵀ · x[K][cols]`, whatever n, h and w,
//   - every row starts on a vec4, also at 7x7 and batch 1,
//   - a range of channels is a contiguous range of memory (concatenation costs nothing),
//   - a sample's arithmetic never depends on the other samples.
// The contents of the padding are unspecified: kernels may write there, and results must not depend on it.

import { STORED_BYTES, type Stored } from './storage.ts';

/** The shape of an activation, channel-major: channels, samples, height, width. Vectors have h = w = 1. */
export type Shape = readonly [c: number, n: number, h: number, w: number];

/** Returns the columns n·h·w of a row. */
export const columns = (shape: Shape): number => shape[1] * shape[2] * shape[3];

/** Returns the distance between rows in elements: the columns, rounded up to a multiple of 4. */
export const pitch = (shape: Shape): number => Math.ceil(columns(shape) / 4) * 4;

/** Returns the elements that an activation occupies, including padding. */
export const storageElements = (shape: Shape): number => shape[0] * pitch(shape);

/** Returns the bytes that an activation occupies, including padding; u32 takes as many as f32. */
export const storageBytes = (shape: Shape, stored: Stored = 'f32'): number =>
  STORED_BYTES[stored] * storageElements(shape);

/** Converts values in the usual [n, c, h, w] order to rows of channel-major storage. */
export function toChannelMajor(values: ArrayLike<number>, shape: Shape): Float32Array<ArrayBuffer> {
  const [c, n, h, w] = shape;
  const out = new Float32Array(storageElements(shape));
  const p = pitch(shape);
  const hw = h * w;
  for (let i = 0; i < n; i++)
    for (let j = 0; j < c; j++)
      for (let k = 0; k < hw; k++) out[j * p + i * hw + k] = values[(i * c + j) * hw + k]!;
  return out;
}

/** Converts rows of channel-major storage to [n, c, h, w] order, the inverse of `toChannelMajor`. */
export function fromChannelMajor(storage: ArrayLike<number>, shape: Shape): Float32Array<ArrayBuffer> {
  const [c, n, h, w] = shape;
  const out = new Float32Array(c * n * h * w);
  const p = pitch(shape);
  const hw = h * w;
  for (let i = 0; i < n; i++)
    for (let j = 0; j < c; j++)
      for (let k = 0; k < hw; k++) out[(i * c + j) * hw + k] = storage[j * p + i * hw + k]!;
  return out;
}

/** Concatenates arrays into one. */
export function joined(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
