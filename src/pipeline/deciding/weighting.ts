// How much a noise level counts in the weighted mean error of a candidate.

import { UsageError } from '../../errors.ts';
import type { Level } from '../../graph/model.ts';
import {
  importanceLevels,
  riemannLevels,
  type SigmaStatistics,
  type SigmaWeighting,
  sigmaWeight,
  sigmaWeightings,
  spacings,
} from '../../graph/sigmas.ts';
import type { ImportanceGrid, SigmaGrid } from './levels.ts';

/** The weightings by name, for help texts. */
export const weightings = ['uniform', ...sigmaWeightings] as const;

/** What the weightings of continuous models need to know of the model. */
export interface WeightingOptions extends SigmaStatistics {
  /**
   * What the model's errors are distances between: clean images (`x0`, as in RDC and EDM) or noises (`eps`),
   * whose squared distance is smaller by sigma squared. Default `x0`.
   */
  readonly errorOf?: 'x0' | 'eps';
}

const isDensity = (name: string): name is SigmaWeighting => sigmaWeightings.some((known) => known === name);

/**
 * Weights of a grid of levels, by name or given one by one:
 * - `uniform`: 1, the published choice for timesteps (Li et al. 2023);
 * - `lognormal`, `rdc-code`, `elbo`: densities over sigma (see `sigmaWeight`) times ds.
 *
 * `levels` may come in any order; ds is the distance to the next higher sigma (for the highest: the distance
 * below it).
 *
 * @throws UsageError for an unknown name, a weighting that needs sigmas on a grid without, or an array that
 *   does not fit the grid, has a negative or non-finite number, or nothing but zeros.
 */
export function weigh(
  weighting: string | readonly number[],
  levels: readonly Omit<Level, 'weight'>[],
  { errorOf = 'x0', ...statistics }: WeightingOptions = {},
): number[] {
  if (typeof weighting !== 'string') return checked(weighting, levels.length);
  if (weighting === 'uniform') return levels.map(() => 1);
  if (!isDensity(weighting))
    throw new UsageError(`weighting "${weighting}" is unknown; there are ${weightings.join(', ')}`);
  const sigmas = levels.map(({ sigma }) => {
    if (sigma === undefined)
      throw new UsageError(`weighting "${weighting}" needs sigmas; this grid has timesteps`);
    return sigma;
  });
  const density = sigmaWeight(weighting, statistics);
  const width = spacings(sigmas);
  return sigmas.map((s, i) => density(s) * width[i]! * (errorOf === 'x0' ? 1 : s * s));
}

/**
 * The levels of a grid of sigmas with their weights, ascending, for a model whose errors are distances between
 * images.
 *
 * @throws UsageError as `weigh`, and where sigmas are to be placed by a weighting that is no density over sigma.
 */
export function sigmaLevels(
  grid: SigmaGrid | ImportanceGrid,
  weighting: string | readonly number[],
  statistics: SigmaStatistics = {},
): Level[] {
  const density = typeof weighting === 'string' && isDensity(weighting) ? weighting : undefined;
  if ('importance' in grid) {
    const { importance, range } = grid;
    if (density) return importanceLevels(importance, density, { ...statistics, range });
    const got = typeof weighting === 'string' ? `"${weighting}"` : 'a list of weights';
    throw new UsageError(
      `an importance-placed grid wants a weighting to place sigmas by, ${sigmaWeightings.join(', ')}, got ${got}`,
    );
  }
  const { sigma, intervals = false } = grid;
  if (intervals && density && sigma.length > 1) return riemannLevels(sigma, density, statistics);
  const levels = sigma.map((s) => ({ sigma: s }));
  return weigh(weighting, levels, statistics).map((weight, i) => ({ ...levels[i]!, weight }));
}

function checked(weights: readonly number[], count: number): number[] {
  if (weights.length !== count)
    throw new UsageError(`${weights.length} weights for a grid of ${count} levels`);
  const bad = weights.find((w) => !Number.isFinite(w) || w < 0);
  if (bad !== undefined) throw new UsageError(`a weight must be finite and not negative, got ${bad}`);
  if (!weights.some((w) => w > 0)) throw new UsageError('all weights of the grid are 0');
  return [...weights];
}
