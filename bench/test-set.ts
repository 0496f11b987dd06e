// Reads the test split of an IDX data set, such as Fashion-MNIST from Debian's package dataset-fashion-mnist.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { ImageItem } from '../src/index.ts';

/** The folder in which Debian's package installs Fashion-MNIST. */
export const DATA = '/usr/share/datasets/fashion-mnist';

/** Images [1, height, width] in [-1, 1], named by their index, and their labels. */
export interface TestSet {
  readonly images: readonly ImageItem[];
  readonly labels: Uint8Array;
}

/** Reads `count` images of a folder's test split, from number `start` on. */
export function readTestSet(folder: string, count: number, start = 0): TestSet {
  const idx = (name: string) => gunzipSync(readFileSync(join(folder, `t10k-${name}-ubyte.gz`)));
  const pixels = idx('images-idx3');
  const length = pixels.readUInt32BE(8) * pixels.readUInt32BE(12);
  const last = Math.min(pixels.readUInt32BE(4), start + count);
  const images = Array.from({ length: Math.max(last - start, 0) }, (_, i) => {
    const at = 16 + (start + i) * length;
    const item = Float32Array.from(pixels.subarray(at, at + length), (value) => (value / 255 - 0.5) / 0.5);
    return { path: String(start + i), pixels: item };
  });
  return { images, labels: new Uint8Array(idx('labels-idx1').subarray(8 + start, 8 + last)) };
}

/** Yields the images one by one. */
export async function* streamed({ images }: Pick<TestSet, 'images'>): AsyncGenerator<ImageItem> {
  yield* images;
}

/** Returns Wilson's 95 % interval of the share `right` / `n`, in per cent. */
export function wilson(right: number, n: number): readonly [low: number, high: number] {
  const z = 1.959964;
  const p = right / n;
  const centre = p + (z * z) / (2 * n);
  const half = z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  const scale = 100 / (1 + (z * z) / n);
  return [(centre - half) * scale, (centre + half) * scale];
}
