// How much a noise level counts in the weighted mean error of a candidate.

import type { Level } from '../../graph/model.ts';
import { UsageError } from '../errors.ts';

/** The weightings by name, for help texts. */
export const weightings = ['uniform', 'rdc-code', 'lognormal', 'elbo'] as const;

/** What the weightings of continuous models need to know of the model. */
export interface WeightingOptions {
  /** Standard deviation of the data, EDM's sigma_data; 0.5. */
  readonly sigmaData?: number;
  /** Mean of ln(sigma) in training; -1.2. */
  readonly pMean?: number;
  /** Standard deviation of ln(sigma) in training; 1.2. */
  readonly pStd?: number;
  /**
   * What the model's errors are distances between: clean images (`x0`, as in RDC and EDM) or noises (`eps`),
   * whose squared distance is smaller by sigma squared. Default `x0`.
   */
  readonly errorOf?: 'x0' | 'eps';
}

/**
 * Weights of a grid of levels, by name or given one by one:
 * - `uniform`: 1, the published choice for timesteps (Li et al. 2023);
 * - `lognormal`: EDM's training loss, ((s^2 + sd^2) / (s sd)^2) p(s) ds with ln s ~ N(pMean, pStd^2);
 * - `rdc-code`: the same as RDC's code has it, whose exponent multiplies by pStd^2 / 2 where a normal density
 *   divides by 2 pStd^2 (an effective spread of 1 / pStd);
 * - `elbo`: ds / s^3, the evidence lower bound of the variance-exploding process.
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
  { sigmaData = 0.5, pMean = -1.2, pStd = 1.2, errorOf = 'x0' }: WeightingOptions = {},
): number[] {
  if (typeof weighting !== 'string') return checked(weighting, levels.length);
  if (weighting === 'uniform') return levels.map(() => 1);
  const density = densities.get(weighting);
  if (density === undefined)
    throw new UsageError(`weighting "${weighting}" is unknown; there are ${weightings.join(', ')}`);
  const sigmas = levels.map(({ sigma }) => {
    if (sigma === undefined)
      throw new UsageError(`weighting "${weighting}" needs sigmas; this grid has timesteps`);
    return sigma;
  });
  const spacing = spacings(sigmas);
  return sigmas.map((s, i) => {
    const weight = density({ s, sigmaData, pMean, pStd }) * spacing[i]!;
    return errorOf === 'x0' ? weight : weight * s * s;
  });
}

interface At {
  readonly s: number;
  readonly sigmaData: number;
  readonly pMean: number;
  readonly pStd: number;
}

/** Densities over sigma for errors of clean images. */
const densities: ReadonlyMap<string, (at: At) => number> = new Map([
  ['lognormal', (at: At) => edmLoss(at) * Math.exp(-(logDistance(at) ** 2) / (2 * at.pStd ** 2))],
  ['rdc-code', (at: At) => edmLoss(at) * Math.exp((-(logDistance(at) ** 2) / 2) * at.pStd ** 2)],
  ['elbo', ({ s }: At) => s ** -3],
]);

const logDistance = ({ s, pMean }: At): number => Math.log(s) - pMean;

const edmLoss = ({ s, sigmaData, pStd }: At): number =>
  (s * s + sigmaData * sigmaData) / (s * sigmaData) ** 2 / (s * pStd * Math.sqrt(2 * Math.PI));

function spacings(sigmas: readonly number[]): number[] {
  const ascending = [...sigmas].sort((a, b) => a - b);
  if (ascending.length === 1) return [1];
  const gaps = ascending.map((s, i) =>
    i + 1 < ascending.length ? ascending[i + 1]! - s : s - ascending[i - 1]!,
  );
  return sigmas.map((s) => gaps[ascending.indexOf(s)]!);
}

function checked(weights: readonly number[], count: number): number[] {
  if (weights.length !== count)
    throw new UsageError(`${weights.length} weights for a grid of ${count} levels`);
  const bad = weights.find((w) => !Number.isFinite(w) || w < 0);
  if (bad !== undefined) throw new UsageError(`a weight must be finite and not negative, got ${bad}`);
  if (!weights.some((w) => w > 0)) throw new UsageError('all weights of the grid are 0');
  return [...weights];
}
