// The images that an attack may choose from: a ball of radius eps around the image, within [0, 1].

import { clamp } from '../../numbers.ts';
import { distance, l2, type Norm } from '../norms.ts';

/** How far an attack may change an image: `eps` in [0, 1] pixel units, over all channels and pixels together. */
export interface Ball {
  readonly norm: Norm;
  readonly eps: number;
}

/**
 * Projects z into the ball and into [0, 1]. In l2 it is projected into the ball first and then into [0, 1],
 * which only brings it nearer to the centre.
 */
export function project({ norm, eps }: Ball, z: Float64Array, centre: Float64Array): Float64Array {
  if (norm === 'linf')
    return z.map((v, i) => clamp(v, Math.max(0, centre[i]! - eps), Math.min(1, centre[i]! + eps)));
  const far = distance('l2', z, centre);
  const scale = far > eps ? eps / far : 1;
  return z.map((v, i) => clamp(centre[i]! + (v - centre[i]!) * scale, 0, 1));
}

/** Returns the direction of steepest ascent in a norm: the sign of the gradient, or its unit vector. */
export function ascent(norm: Norm, gradient: Float64Array): Float64Array {
  if (norm === 'linf') return gradient.map((g) => (g > 0 ? 1 : g < 0 ? -1 : 0));
  const length = l2(gradient);
  return length > 0 ? gradient.map((g) => g / length) : gradient;
}
