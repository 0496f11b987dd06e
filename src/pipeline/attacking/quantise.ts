// Images in [0, 1] as 8 bits, without leaving the ball.

import { clamp } from '../../numbers.ts';
import { distance } from '../norms.ts';
import type { Ball } from './ball.ts';

/** Tolerance of the comparison with eps, because distances are sums of rounded numbers. */
const SLACK = 1e-9;

/**
 * Rounds x to the nearest 8-bit image in the ball around `centre`, which is an 8-bit image itself; returns it
 * in [0, 1]. Rounding can increase an l2 distance beyond eps. Then the values whose distance grew most are
 * rounded towards the centre instead, one after the other, until the image is in the ball.
 */
export function quantise(x: Float64Array, centre: Float64Array, { norm, eps }: Ball): Float64Array {
  const bytes = x.map((v) => clamp(Math.round(v * 255), 0, 255));
  const middle = centre.map((v) => Math.round(v * 255));
  if (norm === 'linf') {
    const reach = Math.floor(eps * 255 + SLACK);
    return bytes.map((b, i) => clamp(b, middle[i]! - reach, middle[i]! + reach) / 255);
  }
  const gains = Array.from(bytes, (b, i) => ({
    i,
    gain: Math.abs(b - middle[i]!) - Math.abs(x[i]! * 255 - middle[i]!),
  }))
    .filter(({ i, gain }) => gain > 0 && bytes[i] !== middle[i])
    .sort((a, b) => b.gain - a.gain || a.i - b.i);
  const toCentre = (i: number) => {
    bytes[i]! -= Math.sign(bytes[i]! - middle[i]!);
  };
  const most = (eps * 255 + SLACK) ** 2;
  let square = distance('l2', bytes, middle) ** 2;
  for (const { i } of gains) {
    if (square <= most) break;
    const d = Math.abs(bytes[i]! - middle[i]!);
    toCentre(i);
    square += (d - 1) ** 2 - d * d;
  }
  return bytes.map((b) => b / 255);
}
