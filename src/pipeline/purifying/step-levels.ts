// The levels and noises of a purification's steps: which ones a model is opened with, and which ones a step takes.

import { ModelError, UsageError } from '../../errors.ts';
import type { Level, Mix } from '../../graph/model.ts';
import type { ModelSummary } from '../../graph/model-summary.ts';
import type { CommonOptions, PurifyingModel } from './purification-entry.ts';

/** Returns the levels of some timesteps, each once. */
export const levelsOfTimesteps = (timesteps: readonly number[]): Level[] =>
  [...new Set(timesteps)].map((t) => ({ t, weight: 1 }));

/**
 * Returns the levels of some sigmas, each once: these sigmas themselves, or the first timesteps whose sigmas
 * are at least as large.
 *
 * @throws UsageError if a sigma is above the model's last.
 */
export function levelsOfSigmas(
  sigmas: readonly number[],
  { name, timestepSigmas }: Pick<ModelSummary, 'name' | 'timestepSigmas'>,
): Level[] {
  if (!timestepSigmas) return [...new Set(sigmas)].map((sigma) => ({ sigma, weight: 1 }));
  const timesteps = sigmas.map((sigma) => {
    const t = timestepSigmas.findIndex((own) => own >= sigma);
    if (t < 0)
      throw new UsageError(`${name}: sigma ${sigma} is above the model's last, ${timestepSigmas.at(-1)}`);
    return t;
  });
  return levelsOfTimesteps(timesteps);
}

/** Relative difference that rounding may make between a level's sigma and the one that it was opened for. */
const ROUNDING = 1e-6;

/**
 * Returns the level of an opened model with the smallest sigma of at least `sigma`.
 * @throws UsageError if none has.
 */
export function levelAt(sigma: number, { name, mixes }: PurifyingModel): number {
  const own = mixes.map(({ a, b }) => b / a);
  const enough = own.map((value, i) => ({ value, i })).filter(({ value }) => value >= sigma * (1 - ROUNDING));
  const least = enough.sort((one, other) => one.value - other.value)[0];
  if (!least)
    throw new UsageError(
      `${name}: opened without a level of sigma ${sigma}; its largest is ${Math.max(...own)}`,
    );
  return least.i;
}

/** True if a model's levels are sigmas that are added to an image (EDM), rather than timesteps. */
export const addsNoise = (mixes: readonly Mix[]): boolean => mixes.every(({ a }) => a === 1);

/**
 * Returns the index of the i-th noise of a purification that takes `needed` of them.
 *
 * @throws ModelError if fewer noises are given.
 */
export function noiseIndices(
  method: string,
  { draw = 0 }: CommonOptions,
  { name, noise }: PurifyingModel,
  needed: number,
): (i: number) => number {
  const last = (draw + 1) * needed;
  if (noise.count !== undefined && noise.count < last)
    throw new ModelError(`${name}: ${noise.count} noises are given, ${method} takes ${last}`);
  return (i) => noise.first + draw * needed + i;
}
