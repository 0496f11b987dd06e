// Grids of noise levels, and the order in which they are best visited.

import type { Level } from '../../graph/model.ts';
import { UsageError } from '../errors.ts';

/** A grid in ascending order: timesteps of a discrete model, or sigmas of a continuous one. */
export type Grid = { readonly t: readonly number[] } | { readonly sigma: readonly number[] };

/**
 * The published grid of `count` timesteps out of `trainSteps`: step = floor(T / N), beginning at
 * floor(step / 2), the first N (Li et al., ICCV 2023, eval_prob_adaptive).
 *
 * @throws UsageError unless count is an integer in [1, trainSteps].
 */
export function evenTimesteps(count: number, trainSteps: number): number[] {
  if (!Number.isInteger(count) || count < 1 || count > trainSteps)
    throw new UsageError(`even: wants 1 to ${trainSteps} timesteps, got ${count}`);
  const step = Math.floor(trainSteps / count);
  const start = Math.floor(step / 2);
  return Array.from({ length: count }, (_, k) => start + k * step);
}

/**
 * `count` equally spaced values from `from` to `to`, both included.
 *
 * @throws UsageError unless 0 < from < to and count is an integer of at least 2 (or from = to and count 1).
 */
export function linspace(from: number, to: number, count: number): number[] {
  const single = count === 1 && from === to;
  if (
    !Number.isInteger(count) ||
    !(from > 0) ||
    !Number.isFinite(to) ||
    !(single || (count >= 2 && from < to))
  )
    throw new UsageError(
      `linspace: wants 0 < from < to and a count of 2 or more, got ${from}:${to}:${count}`,
    );
  const step = single ? 0 : (to - from) / (count - 1);
  return Array.from({ length: count }, (_, k) => (k === count - 1 ? to : from + k * step));
}

/**
 * Reads a grid as the command line writes it:
 * - `even:N`: N timesteps (see `evenTimesteps`), which needs `trainSteps`;
 * - `linspace:A:B:N`: N sigmas from A to B, both included;
 * - `linspace:A:B:N:left`: the same without the last, the left Riemann sum of RDC (`1e-4:3:126:left` is its
 *   grid of 125).
 *
 * @throws UsageError for anything else.
 */
export function parseGrid(text: string, trainSteps?: number): Grid {
  const [kind, ...rest] = text.split(':');
  const ends = rest.at(-1) === 'left' ? rest.slice(0, -1) : rest;
  const numbers = ends.map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const [a, b, n] = numbers;
  if (kind === 'even' && rest.length === 1 && a !== undefined) {
    if (trainSteps === undefined) throw new UsageError(`${text}: the model has sigmas, not timesteps`);
    return { t: evenTimesteps(a, trainSteps) };
  }
  if (kind === 'linspace' && numbers.length === 3 && a !== undefined && b !== undefined && n !== undefined) {
    const sigma = linspace(a, b, n);
    return { sigma: ends === rest ? sigma : sigma.slice(0, -1) };
  }
  throw new UsageError(`grid "${text}": wanted even:N, linspace:A:B:N or linspace:A:B:N:left`);
}

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

/** Indices of the levels by rising timestep or sigma, whatever order they are given in. */
export function ascending(levels: readonly Omit<Level, 'weight'>[]): number[] {
  const position = ({ t, sigma }: Omit<Level, 'weight'>): number => t ?? sigma ?? 0;
  return levels.map((_, i) => i).sort((a, b) => position(levels[a]!) - position(levels[b]!) || a - b);
}

/**
 * The order in which the levels of an ascending grid are visited unless somebody knows better: bit-reversed, from
 * a quarter of the grid on, so that neither of the first two levels is at its very ends.
 */
export const visitingOrder = (count: number): number[] => bitReversed(count, 0.25);
