// Grids of sigmas for continuous models, with weights. The loss of a diffusion classifier is an integral over sigma,
// L = ∫ w(sigma) E(sigma) dsigma, which a weighted grid approximates by a sum. E(sigma) is the mean squared distance
// between the denoised image D(x + sigma n; sigma) and x.

import type { Level } from './model.ts';

/** Constants of EDM's training (Karras et al. 2022, table 1). */
export interface SigmaStatistics {
  /** Standard deviation of the data, in the network's [-1, 1] units. Default: 0.5. */
  readonly sigmaData?: number;
  /** Mean of ln(sigma) in training. Default: -1.2. */
  readonly pMean?: number;
  /** Standard deviation of ln(sigma) in training. Default: 1.2. */
  readonly pStd?: number;
}

/** A level of a continuous model. */
export interface SigmaLevel extends Level {
  readonly sigma: number;
}

/** Names of the weightings that are functions of sigma. */
export const sigmaWeightings = ['rdc-code', 'lognormal', 'elbo'] as const;

/** One of `sigmaWeightings`. */
export type SigmaWeighting = (typeof sigmaWeightings)[number];

/**
 * Returns the function w(sigma), the weight of the error E(sigma) per unit of sigma:
 * - `lognormal`: EDM's training loss, ((s² + sd²) / (s sd)²) p(s) with the density p of ln s ~ N(pMean, pStd²);
 * - `rdc-code`: the same as in RDC's released code (Chen et al., ICML 2024), whose exponent is
 *   -(ln s - pMean)² / 2 · pStd² instead of the normal density's -(ln s - pMean)² / (2 pStd²). Its effective spread is
 *   1 / pStd, and it is not a density (it integrates to 1 / pStd²);
 * - `elbo`: 1 / s³, the evidence lower bound of the variance-exploding process.
 *
 * @example
 * import { sigmaWeight } from 'diffclass-stream';
 * const weight = sigmaWeight('lognormal', { sigmaData: 0.5 });
 * console.log(weight(0.3));
 */
export function sigmaWeight(
  weighting: SigmaWeighting,
  { sigmaData = 0.5, pMean = -1.2, pStd = 1.2 }: SigmaStatistics = {},
): (sigma: number) => number {
  const trained = (exponent: number) => (s: number) =>
    Math.exp((-((Math.log(s) - pMean) ** 2) / 2) * exponent) /
    (s * pStd * Math.sqrt(2 * Math.PI)) /
    normalisedError(s, sigmaData);
  switch (weighting) {
    case 'rdc-code':
      return trained(pStd ** 2);
    case 'lognormal':
      return trained(pStd ** -2);
    case 'elbo':
      return (s) => s ** -3;
    default:
      return weighting satisfies never;
  }
}

/**
 * Returns the error E of an EDM network at sigma if the output of its trained part is off by 1:
 * c_out² = (s sd)² / (s² + sd²), where sd is the standard deviation of the data. Errors of a trained network are this
 * times a number between 0 and 1 that changes little with sigma. In this unit, errors of different sigmas can be compared.
 */
export const normalisedError = (sigma: number, sigmaData = 0.5): number =>
  (sigma * sigmaData) ** 2 / (sigma ** 2 + sigmaData ** 2);

/** Returns `count` equally spaced values from `from` to `to`, both included; a single value is `from`. */
export function equallySpaced(from: number, to: number, count: number): number[] {
  const step = count > 1 ? (to - from) / (count - 1) : 0;
  return Array.from({ length: count }, (_, k) => (k > 0 && k === count - 1 ? to : from + k * step));
}

/**
 * Returns the width dsigma that each of some distinct sigmas, in any order, stands for: the distance to the next higher
 * one, or for the highest sigma to the next lower one. The width of a single sigma is 1.
 */
export function spacings(sigmas: readonly number[]): number[] {
  const rising = [...sigmas].sort((a, b) => a - b);
  const last = rising.length - 1;
  if (last < 1) return sigmas.map(() => 1);
  return sigmas.map((s) => {
    const k = Math.min(rising.indexOf(s), last - 1);
    return rising[k + 1]! - rising[k]!;
  });
}

/**
 * Returns the levels of a left Riemann sum over ascending `points`: one at every point but the last, which only ends the
 * last interval, with the weight w(sigma) dsigma.
 */
export function riemannLevels(
  points: readonly number[],
  weighting: SigmaWeighting,
  statistics?: SigmaStatistics,
): SigmaLevel[] {
  const density = sigmaWeight(weighting, statistics);
  return points
    .slice(0, -1)
    .map((sigma, k) => ({ sigma, weight: density(sigma) * (points[k + 1]! - sigma) }));
}

/** The range of sigmas that RDC integrates over. */
export const RDC_RANGE = [1e-4, 3] as const;

/**
 * Returns the grid of RDC's released classifier: linspace(1e-4, 3, 126) without its last point, with weights `rdc-code`.
 * Its posterior is the softmax of -Σ weight · error (see `sumTemperature`).
 */
export const rdcLevels = (statistics?: SigmaStatistics): SigmaLevel[] =>
  riemannLevels(equallySpaced(...RDC_RANGE, 126), 'rdc-code', statistics);

/** Cells of ln(sigma) over which `importanceLevels` integrates the density. */
const CELLS = 8192;

/**
 * Returns levels that approximate the same integral with sigmas placed where it is large: one at each of the quantiles
 * (k + 1/2) / count of the density q(s) ∝ w(s) (s sd)² / (s² + sd²) on `range`. Normalised errors (see `normalisedError`)
 * then have equal weights; the weight of an error E is that weight divided by the unit of E. For `lognormal`, q is the
 * log-normal density itself. The sum Σ weight · error approximates a Riemann sum over the range, so the posterior is
 * the same.
 *
 * @param count the number of levels.
 * @param weighting see `sigmaWeight`.
 * @param options the range of sigmas, [1e-4, 3] by default, and the constants of the training.
 */
export function importanceLevels(
  count: number,
  weighting: SigmaWeighting,
  {
    range: [from, to] = RDC_RANGE,
    ...statistics
  }: SigmaStatistics & {
    readonly range?: readonly [from: number, to: number];
  } = {},
): SigmaLevel[] {
  const density = sigmaWeight(weighting, statistics);
  const unit = (s: number) => normalisedError(s, statistics.sigmaData);
  const low = Math.log(from);
  const step = (Math.log(to) - low) / CELLS;
  const upTo = [0];
  for (let cell = 0; cell < CELLS; cell++) {
    const s = Math.exp(low + (cell + 0.5) * step);
    upTo.push(upTo[cell]! + density(s) * unit(s) * s * step);
  }
  const share = upTo[CELLS]! / count;
  let cell = 0;
  return Array.from({ length: count }, (_, k) => {
    const quantile = (k + 0.5) * share;
    while (upTo[cell + 1]! < quantile) cell++;
    const within = (quantile - upTo[cell]!) / (upTo[cell + 1]! - upTo[cell]!);
    const sigma = Math.exp(low + (cell + within) * step);
    return { sigma, weight: share / unit(sigma) };
  });
}

/**
 * Returns the temperature at which the softmax of weighted mean errors equals the softmax of weighted sums, as in RDC:
 * 1 / Σ weight.
 */
export const sumTemperature = (levels: readonly Pick<Level, 'weight'>[]): number =>
  1 / levels.reduce((sum, { weight }) => sum + weight, 0);
