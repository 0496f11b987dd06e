// The images an attack may choose: a ball of radius eps about the image, within [0, 1].

import { distance, l2, type Norm } from '../norms.ts';

/** What an attack may do to an image: `eps` in [0, 1] pixel units, over all channels and pixels together. */
export interface Ball {
  readonly norm: Norm;
  readonly eps: number;
}

const clip = (v: number, low: number, high: number) => (v < low ? low : v > high ? high : v);

/**
 * The image of the ball, and of [0, 1], nearest to z; in l2 first into the ball and then into [0, 1], which only
 * brings it nearer to the centre.
 */
export function project({ norm, eps }: Ball, z: Float64Array, centre: Float64Array): Float64Array {
  if (norm === 'linf')
    return z.map((v, i) => clip(v, Math.max(0, centre[i]! - eps), Math.min(1, centre[i]! + eps)));
  const far = distance('l2', z, centre);
  const scale = far > eps ? eps / far : 1;
  return z.map((v, i) => clip(centre[i]! + (v - centre[i]!) * scale, 0, 1));
}

/** The direction in which a step of length 1 raises a loss most: the sign of its gradient, or the unit vector. */
export function ascent(norm: Norm, gradient: Float64Array): Float64Array {
  if (norm === 'linf') return gradient.map((g) => (g > 0 ? 1 : g < 0 ? -1 : 0));
  const length = l2(gradient);
  return length > 0 ? gradient.map((g) => g / length) : gradient;
}
