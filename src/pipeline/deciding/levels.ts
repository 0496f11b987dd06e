// Grids of noise levels.

import { UsageError } from '../../errors.ts';
import type { Level } from '../../graph/model.ts';
import { equallySpaced, RDC_RANGE } from '../../graph/sigmas.ts';

/** Sigmas of a continuous model, ascending. */
export interface SigmaGrid {
  readonly sigma: readonly number[];
  /** The sigmas are ends of intervals: where weights are an integral, the last one is no level. */
  readonly intervals?: boolean;
}

/** A number of sigmas in a range, placed where the weights have their mass (see `importanceLevels`). */
export interface ImportanceGrid {
  readonly importance: number;
  readonly range: readonly [from: number, to: number];
}

/** A grid in ascending order: timesteps of a discrete model, or sigmas of a continuous one. */
export type Grid = { readonly t: readonly number[] } | SigmaGrid | ImportanceGrid;

/**
 * Returns the published grid of `count` timesteps out of `trainSteps`: step = floor(T / N), beginning at
 * floor(step / 2), the first N (Li et al., ICCV 2023, eval_prob_adaptive).
 *
 * @throws UsageError unless count is an integer in [1, trainSteps].
 */
export function evenTimesteps(count: number, trainSteps: number): number[] {
  if (!Number.isInteger(count) || count < 1 || count > trainSteps)
    throw new UsageError(`even: expected 1 to ${trainSteps} timesteps, got ${count}`);
  const step = Math.floor(trainSteps / count);
  const start = Math.floor(step / 2);
  return Array.from({ length: count }, (_, k) => start + k * step);
}

/**
 * Returns `count` equally spaced values from `from` to `to`, both included.
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
      `linspace: expected 0 < from < to and a count of 2 or more, got ${from}:${to}:${count}`,
    );
  return equallySpaced(from, to, count);
}

/**
 * Reads a grid as the command line writes it:
 * - `even:N`: N timesteps (see `evenTimesteps`), which needs `trainSteps`;
 * - `linspace:A:B:N`: N sigmas from A to B. They are ends of intervals: under a weighting that is a density
 *   over sigma (all but `uniform` and a file), the last one only ends the last interval, which makes the left
 *   Riemann sum of RDC; its grid is `linspace:1e-4:3:126`, 125 sigmas;
 * - `linspace:A:B:N:left`: the same without the last, whatever the weighting;
 * - `importance:N` or `importance:A:B:N`: N sigmas of 1e-4 to 3 (or A to B) placed by the weighting;
 * - `A,B,C,...`: these sigmas, in any order.
 *
 * @throws UsageError for anything else.
 */
export function parseGrid(text: string, trainSteps?: number): Grid {
  const [kind = '', ...rest] = text.split(':');
  if (rest.length === 0 && kind !== '') return { sigma: sigmaList(text) };
  const ends = rest.at(-1) === 'left' ? rest.slice(0, -1) : rest;
  const numbers = ends.map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const [a, b, n] = numbers;
  if (kind === 'even' && rest.length === 1 && a !== undefined) {
    if (trainSteps === undefined) throw new UsageError(`${text}: the model has sigmas, not timesteps`);
    return { t: evenTimesteps(a, trainSteps) };
  }
  if (kind === 'linspace' && numbers.length === 3 && a !== undefined && b !== undefined && n !== undefined) {
    const sigma = linspace(a, b, n);
    if (ends === rest) return { sigma, intervals: true };
    if (n > 1) return { sigma: sigma.slice(0, -1) };
  }
  if (kind === 'importance' && ends === rest && (numbers.length === 1 || numbers.length === 3)) {
    const count = numbers.at(-1)!;
    const [from, to] = numbers.length === 3 ? [a!, b!] : RDC_RANGE;
    if (Number.isInteger(count) && count >= 1 && from > 0 && from < to && Number.isFinite(to))
      return { importance: count, range: [from, to] };
  }
  throw new UsageError(
    `expected a grid even:N, linspace:A:B:N, linspace:A:B:N:left, importance:N, importance:A:B:N or sigmas separated by commas, got "${text}"`,
  );
}

/**
 * Reads sigmas separated by commas; returns them ascending.
 * @throws UsageError if one is not positive, or repeated.
 */
function sigmaList(text: string): number[] {
  const sigmas = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const bad = sigmas.findIndex((sigma) => !(sigma > 0 && Number.isFinite(sigma)));
  if (bad >= 0)
    throw new UsageError(`grid "${text}": expected positive sigmas, got "${text.split(',')[bad]}"`);
  const twice = sigmas.find((sigma, i) => sigmas.indexOf(sigma) < i);
  if (twice !== undefined)
    throw new UsageError(`grid "${text}": expected different sigmas, got ${twice} twice`);
  return sigmas.sort((x, y) => x - y);
}

/** Returns the indices of the levels by rising timestep or sigma, whatever order they are given in. */
export function ascending(levels: readonly Omit<Level, 'weight'>[]): number[] {
  const position = ({ t, sigma }: Omit<Level, 'weight'>): number => t ?? sigma ?? 0;
  return levels.map((_, i) => i).sort((a, b) => position(levels[a]!) - position(levels[b]!) || a - b);
}
