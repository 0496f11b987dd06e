// The order in which noise levels are visited, so that every prefix is a fair sample of all of them.

import { sum } from '../numbers.ts';
import type { Level } from './model.ts';
import { normalisedError } from './sigmas.ts';

/** Returns the radical inverse of `k` in base 2 (van der Corput), in [0, 1): 0, 1/2, 1/4, 3/4, 1/8, ... */
function radicalInverse(k: number): number {
  let inverse = 0;
  let digit = 0.5;
  for (let rest = k; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) inverse += digit;
    digit /= 2;
  }
  return inverse;
}

/**
 * Returns the indices 0 to count - 1 in bit-reversed order, so that every prefix covers the grid evenly. `first` in
 * [0, 1) rotates the sequence to begin at that fraction of the grid: with 0.5 the middle comes first.
 */
export function bitReversed(count: number, first = 0): number[] {
  const bits = Math.max(0, Math.ceil(Math.log2(count)));
  const shift = Math.floor(first * count);
  const order: number[] = [];
  for (let k = 0; k < 2 ** bits; k++) {
    const index = Math.round(radicalInverse(k) * 2 ** bits);
    if (index < count) order.push((index + shift) % count);
  }
  return order;
}

/**
 * Estimates how much a level contributes to the weighted error of the whole grid: its weight, for a sigma times the unit
 * of errors there (`normalisedError`). The weight of a sigma alone does not tell, because errors grow with sigma squared.
 */
export const gridShare = ({ sigma, weight }: Level): number =>
  sigma === undefined ? weight : weight * normalisedError(sigma);

/** Points of the sequence that are tried per level. */
const TRIES = 16;

/**
 * Returns the default order in which the levels of an ascending grid are visited: bit-reversed, starting at a quarter of
 * the grid, so that neither of the first two levels is at an end. If the levels have different `shares` (see
 * `gridShare`), the sequence runs over the cumulative shares instead of the indices, so that every prefix is a fair
 * sample of the sum. Levels that the sequence does not hit come last, the largest share first.
 */
export function visitingOrder(shares: number | readonly number[]): number[] {
  if (typeof shares === 'number') return bitReversed(shares, 0.25);
  const total = sum(shares);
  if (!(total > 0) || shares.every((share) => share === shares[0])) return visitingOrder(shares.length);
  const ends: number[] = [];
  for (const share of shares) ends.push((ends.at(-1) ?? 0) + share / total);
  // Half of the finest step: no level is hit only because a point is at the boundary between two levels.
  const offset = 0.25 + 0.5 / (shares.length * TRIES);
  const hit = new Set<number>();
  for (let k = 0; k < shares.length * TRIES; k++) {
    const at = (radicalInverse(k) + offset) % 1;
    const level = ends.findIndex((end) => at < end);
    if (level >= 0) hit.add(level);
  }
  const rest = shares.map((_, level) => level).filter((level) => !hit.has(level));
  return [...hit, ...rest.sort((a, b) => shares[b]! - shares[a]! || a - b)];
}
