// How far two images are from each other.

/** Norms that distances of images and radii of balls are measured in. */
export const NORMS = ['linf', 'l2'] as const;

/** One of `NORMS`. */
export type Norm = (typeof NORMS)[number];

/** Euclidean length: a sum in order. */
export function l2(v: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < v.length; i++) sum += v[i]! * v[i]!;
  return Math.sqrt(sum);
}

/** The distance of two images in a norm, in their own units. */
export function distance(norm: Norm, x: ArrayLike<number>, from: ArrayLike<number>): number {
  let [most, sum] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    const d = Math.abs(x[i]! - from[i]!);
    most = Math.max(most, d);
    sum += d * d;
  }
  return norm === 'linf' ? most : Math.sqrt(sum);
}
