// The weights of noise levels in the weighted mean error of a candidate.

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

/** What weightings of continuous models need to know about the model. */
export interface WeightingOptions extends SigmaStatistics {
  /**
   * Whether the model's errors are distances between clean images (`x0`, as in RDC and EDM) or between noises
   * (`eps`). The squared distance between noises is smaller by a factor of sigma squared. Default `x0`.
   */
  readonly errorOf?: 'x0' | 'eps';
}

const isDensity = (name: string): name is SigmaWeighting => sigmaWeightings.some((known) => known === name);

/**
 * Returns the weights of a grid of levels, by name or given one by one:
 * - `uniform`: 1, the published choice for timesteps (Li et al. 2023);
 * - `lognormal`, `rdc-code`, `elbo`: densities over sigma (see `sigmaWeight`) times ds.
 *
 * `levels` may come in any order; ds is the distance to the next higher sigma (for the highest: the distance below it).
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
    throw new UsageError(`expected a weighting ${weightings.join(', ')}, got "${weighting}"`);
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
 * Returns the levels of a grid of sigmas with their weights, ascending, for a model whose errors are
 * distances between images.
 *
 * @throws UsageError as `weigh`, and if sigmas must be placed by a weighting that is not a density over
 *   sigma.
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
      `importance: expected a weighting that sigmas can be placed by, ${sigmaWeightings.join(', ')}; got ${got}`,
    );
  }
  const { sigma, intervals = false } = grid;
  if (intervals && density && sigma.length > 1) return riemannLevels(sigma, density, statistics);
  const levels = sigma.map((s) => ({ sigma: s }));
  return weigh(weighting, levels, statistics).map((weight, i) => ({ ...levels[i]!, weight }));
}

function checked(weights: readonly number[], count: number): number[] {
  if (weights.length !== count)
    throw new UsageError(`expected ${count} weights, one per level of the grid, got ${weights.length}`);
  const bad = weights.find((w) => !Number.isFinite(w) || w < 0);
  if (bad !== undefined)
    throw new UsageError(`expected weights that are finite and not negative, got ${bad}`);
  if (!weights.some((w) => w > 0))
    throw new UsageError('expected a weight above 0 in the grid, got only zeros');
  return [...weights];
}
