// Norms, and distances between images.

/** The norms of distances between images, and of the radii of balls. */
export const NORMS = ['linf', 'l2'] as const;

/** One of `NORMS`. */
export type Norm = (typeof NORMS)[number];

/** Returns the Euclidean length, summed in order. */
export function l2(v: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < v.length; i++) sum += v[i]! * v[i]!;
  return Math.sqrt(sum);
}

/** Returns the distance between two images in a norm, in the units of their pixels. */
export function distance(norm: Norm, x: ArrayLike<number>, from: ArrayLike<number>): number {
  let [most, sum] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    const d = Math.abs(x[i]! - from[i]!);
    most = Math.max(most, d);
    sum += d * d;
  }
  return norm === 'linf' ? most : Math.sqrt(sum);
}
