// Sigmas of continuous models and how much each counts: a diffusion classifier's loss is an integral over sigma,
// L = ∫ w(sigma) E(sigma) dsigma, and a grid with weights is a way to sum it up. E is the mean squared distance
// of the denoised image D(x + sigma n; sigma) and x.

import type { Level } from './model.ts';

/** How a network was trained: EDM's constants (Karras et al. 2022, table 1). */
export interface SigmaStatistics {
  /** Standard deviation of the data, in the network's [-1, 1] units; 0.5. */
  readonly sigmaData?: number;
  /** Mean of ln(sigma) in training; -1.2. */
  readonly pMean?: number;
  /** Standard deviation of ln(sigma) in training; 1.2. */
  readonly pStd?: number;
}

/** A level of a continuous model. */
export interface SigmaLevel extends Level {
  readonly sigma: number;
}

/** The weightings that are densities over sigma, by name. */
export const sigmaWeightings = ['rdc-code', 'lognormal', 'elbo'] as const;

/** One of `sigmaWeightings`. */
export type SigmaWeighting = (typeof sigmaWeightings)[number];

/**
 * w(sigma), the weight of the error E(sigma) per unit of sigma:
 * - `lognormal`: EDM's training loss, ((s² + sd²) / (s sd)²) p(s) with the density p of ln s ~ N(pMean, pStd²);
 * - `rdc-code`: the same as RDC released it (Chen et al., ICML 2024), whose exponent is
 *   -(ln s - pMean)² / 2 · pStd² where a normal density has -(ln s - pMean)² / (2 pStd²): an effective spread of
 *   1 / pStd, and no density (it integrates to 1 / pStd²);
 * - `elbo`: 1 / s³, the evidence lower bound of the variance-exploding process.
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
 * The error E that an EDM network makes at sigma when the output of its trained part is off by 1:
 * c_out² = (s sd)² / (s² + sd²), with sd the standard deviation of the data. Errors of a trained network are this
 * times a number between 0 and 1 that changes little with sigma, so this is the unit in which errors of different
 * sigmas can be compared.
 */
export const normalisedError = (sigma: number, sigmaData = 0.5): number =>
  (sigma * sigmaData) ** 2 / (sigma ** 2 + sigmaData ** 2);

/** `count` equally spaced values from `from` to `to`, both included; a single one is `from`. */
export function equallySpaced(from: number, to: number, count: number): number[] {
  const step = count > 1 ? (to - from) / (count - 1) : 0;
  return Array.from({ length: count }, (_, k) => (k > 0 && k === count - 1 ? to : from + k * step));
}

/**
 * The width dsigma that each of some different sigmas stands for, whatever their order: the distance to the next
 * higher one, for the highest the distance to the next lower. A single sigma stands for 1.
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
 * The left Riemann sum over `points`, ascending: a level at every point but the last, which only ends the last
 * interval; weight w(sigma) dsigma.
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
 * The grid of RDC's released classifier: linspace(1e-4, 3, 126) without its last point, weights `rdc-code`. Its
 * posterior is the softmax of -Σ weight · error (see `sumTemperature`).
 */
export const rdcLevels = (statistics?: SigmaStatistics): SigmaLevel[] =>
  riemannLevels(equallySpaced(...RDC_RANGE, 126), 'rdc-code', statistics);

/** Cells of ln(sigma) in which `importanceLevels` sums the density up. */
const CELLS = 8192;

/**
 * The same integral by sigmas placed where it is large: density q(s) ∝ w(s) (s sd)² / (s² + sd²) on `range`, one
 * sigma at each of the quantiles (k + 1/2) / count, so that normalised errors (`normalisedError`) have the
 * same weight everywhere, and the weight of an error E is that over its unit. For `lognormal` q is the log-normal
 * density itself. The sum Σ weight · error is that of a Riemann sum over the range, and so is its posterior.
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
    const wanted = (k + 0.5) * share;
    while (upTo[cell + 1]! < wanted) cell++;
    const within = (wanted - upTo[cell]!) / (upTo[cell + 1]! - upTo[cell]!);
    const sigma = Math.exp(low + (cell + within) * step);
    return { sigma, weight: share / unit(sigma) };
  });
}

/**
 * The temperature at which the softmax of weighted mean errors is that of weighted sums, as RDC has it:
 * 1 / Σ weight.
 */
export const sumTemperature = (levels: readonly Pick<Level, 'weight'>[]): number =>
  1 / levels.reduce((sum, { weight }) => sum + weight, 0);
