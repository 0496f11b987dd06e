// The noise of a purification on the host, the same as on the device: recomputed from a seed, or a table that was
// given.

import { normals, philox } from '../../kernels/diffusion/philox.ts';

/** Noises by their indices. */
export interface HostNoise {
  /** Index of the first one that purifying uses. */
  readonly first: number;
  /** How many there are from the first one on, where that is known. */
  readonly count?: number | undefined;
  /** Noise `index` [c, h, w]. */
  readonly of: (index: number) => Float32Array;
}

/** Purifying takes noises of a seed from here on, so that it shares none with the evaluations of a classifier. */
const FIRST = 2 ** 31;

/** Bytes of noises that are kept rather than made again for the next image. */
const KEPT = 64 * 2 ** 20;

/** Noise of a seed for images of `length` values. */
export function seededNoise(seed: number, length: number): HostNoise {
  const kept = new Map<number, Float32Array>();
  const make = (index: number): Float32Array => {
    const made = new Float32Array(length);
    for (let block = 0; 4 * block < length; block++)
      made.set(normals({ seed: BigInt(seed) }, index, block).slice(0, length - 4 * block), 4 * block);
    return made;
  };
  return {
    first: FIRST,
    of(index) {
      const found = kept.get(index) ?? make(index);
      if ((kept.size + 1) * length * 4 <= KEPT) kept.set(index, found);
      return found;
    },
  };
}

/** Given noises [count, c, h, w] of images of `length` values. */
export const givenNoise = (values: Float32Array, length: number): HostNoise => ({
  first: 0,
  count: values.length / length,
  of: (index) => values.subarray(index * length, (index + 1) * length),
});

/** The stream of a seed that sigmas are drawn from; its noise is stream 0. */
const SIGMAS = 1;

/** A number of [0, 1) by seed and index. */
export const uniform = (seed: number, index: number): number =>
  philox([0, index, 0, SIGMAS], [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0])[0] / 2 ** 32;
