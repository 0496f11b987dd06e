// The order in which noise levels are best visited: any prefix should be a fair sample of them all.

import type { Level } from './model.ts';
import { normalisedError } from './sigmas.ts';

/**
 * The radical inverse of `k` in base 2 (van der Corput): 0, 1/2, 1/4, 3/4, 1/8, ...; in [0, 1).
 */
export function radicalInverse(k: number): number {
  let inverse = 0;
  let digit = 0.5;
  for (let rest = k; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) inverse += digit;
    digit /= 2;
  }
  return inverse;
}

/**
 * The indices 0..count-1 in bit-reversed order, so that any prefix covers the grid evenly. `first` in [0, 1)
 * rotates the sequence to begin at that fraction of the grid: with 0.5 the middle comes first.
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
 * How much a level contributes to the weighted errors of the whole grid: its weight, times the unit of errors at
 * its sigma (`normalisedError`) where it has one. Weights over sigma go with errors that grow with sigma squared,
 * so they alone say nothing of what a level contributes.
 */
export const gridShare = ({ sigma, weight }: Level): number =>
  sigma === undefined ? weight : weight * normalisedError(sigma);

/** Points of the unit interval tried for a level's turn, of each level. */
const TRIES = 16;

/**
 * The order in which the levels of an ascending grid are visited unless somebody knows better: bit-reversed, from
 * a quarter of the grid on, so that neither of the first two levels is at its very ends. Where the levels'
 * `shares` differ, the sequence runs over the mass of the shares instead of over indices, so that any prefix is a
 * fair sample of the sum; levels that it hardly ever hits come last, the largest first.
 */
export function visitingOrder(shares: number | readonly number[]): number[] {
  if (typeof shares === 'number') return bitReversed(shares, 0.25);
  const total = shares.reduce((sum, share) => sum + share, 0);
  if (!(total > 0) || shares.every((share) => share === shares[0])) return visitingOrder(shares.length);
  const ends: number[] = [];
  for (const share of shares) ends.push((ends.at(-1) ?? 0) + share / total);
  // In the middle of the finest steps: no level is hit for being at the end of the interval.
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
