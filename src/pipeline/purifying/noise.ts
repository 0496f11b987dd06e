// The noise of a purification on the host, the same as on the device: recomputed from a seed, or from a given table.

import { normals, philox } from '../../kernels/diffusion/philox.ts';

/** Noises by their indices. */
export interface HostNoise {
  /** Index of the first noise that a purification uses. */
  readonly first: number;
  /** The number of noises from the first one on, if it is limited. */
  readonly count?: number | undefined;
  /** Noise `index` [c, h, w]. */
  readonly of: (index: number) => Float32Array;
}

/** A purification takes noises of a seed from this index on, so that it shares none with a classifier's evaluations. */
const FIRST = 2 ** 31;

/** Bytes of noises that are kept for the next image, instead of being recomputed. */
const KEPT = 64 * 2 ** 20;

/** Returns the noise of a seed for images of `length` values. */
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

/** Returns given noises [count, c, h, w] of images of `length` values. */
export const givenNoise = (values: Float32Array, length: number): HostNoise => ({
  first: 0,
  count: values.length / length,
  of: (index) => values.subarray(index * length, (index + 1) * length),
});

/** The stream of a seed that sigmas are drawn from; its noise is stream 0. */
const SIGMAS = 1;

/** Returns a number in [0, 1) by seed and index. */
export const uniform = (seed: number, index: number): number =>
  philox([0, index, 0, SIGMAS], [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0])[0] / 2 ** 32;
