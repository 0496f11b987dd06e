// How far two images are from each other.

/** Norms that distances of images and radii of balls are measured in. */
export const NORMS = ['linf', 'l2'] as const;

/** One of `NORMS`. */
export type Norm = (typeof NORMS)[number];
