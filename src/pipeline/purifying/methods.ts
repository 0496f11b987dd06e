// The ways to purify an image, what each may be told, and what it does when it is told nothing: the settings of the
// papers.

import { UsageError } from '../../errors.ts';
import type { Norm } from '../norms.ts';

/**
 * - `lm-adam`: likelihood maximisation as RDC released it (Chen et al., ICML 2024): Adam on the denoising loss;
 * - `lm-momentum`: the same as the paper has it (algorithm 1): steps along the momentum of the normalised gradient,
 *   kept in a ball around the image;
 * - `lm-residual`: `lm-momentum` without the network's Jacobian: x - D(x_s) in the place of the gradient. A third of
 *   the work, another algorithm;
 * - `diffpure`: noised up to t* and denoised along the reverse process (Nie et al., ICML 2022).
 */
export const METHODS = ['lm-adam', 'lm-momentum', 'lm-residual', 'diffpure'] as const;

/** One of `METHODS`. */
export type Method = (typeof METHODS)[number];

/** DiffPure's t*, of 1000, by data set and threat (and for one by the classifier behind it). */
export const T_STAR: Readonly<Record<string, number>> = {
  'cifar10-linf': 100,
  'cifar10-linf-rn50': 125,
  'cifar10-l2': 75,
  'cifar10-l2-rn50': 125,
  'cifar10-stadv': 125,
  'imagenet-linf': 150,
  'celebahq-bpda': 500,
};

/** What a purification may be told; everything but the method has a default. */
export interface PurifyingOptions {
  readonly method: Method;
  /**
   * Steps: 5 of likelihood maximisation; of `diffpure` t* (one a timestep), or 18 where a model's levels are sigmas.
   * Where sigmas are given, as many as those.
   */
  readonly steps?: number | undefined;
  /**
   * How far an image may move, for pixels in [0, 1]. `lm-momentum` and `lm-residual`: 8/255 in linf, 0.5 in l2; the
   * others are not held unless it is given.
   */
  readonly eps?: number | undefined;
  /** The norm of `eps` and of the steps of `lm-momentum` and `lm-residual`; linf. */
  readonly norm?: Norm | undefined;
  /**
   * Size of a step, for pixels in [-1, 1]: Adam's learning rate, 0.1; the length of a step of `lm-momentum` and
   * `lm-residual`, 0.1 in linf, in l2 such that 2 of 5 steps reach the ball's surface.
   */
  readonly stepSize?: number | undefined;
  /**
   * The sigma of every step (noise in units of the image; a model of timesteps takes the first whose sigma is not
   * below it). Without them likelihood maximisation draws from U(0.4, 0.6), and `diffpure` goes down from t*.
   */
  readonly sigmas?: readonly number[] | undefined;
  /** `diffpure`: the timestep, of 1000, that images are noised to; 100, or sigma 0.5 where levels are sigmas. */
  readonly tStar?: number | undefined;
  /** Seed of the sigmas drawn, and of the noise where none is given; 0. */
  readonly seed?: number | undefined;
  /** Which of several independent purifications of one seed it is, from 0 on. */
  readonly draw?: number | undefined;
}

/** Steps of likelihood maximisation, as published. */
const LM_STEPS = 5;

/** How many steps it is, where that does not depend on the model. */
export const stepsOfLikelihood = ({ steps, sigmas }: PurifyingOptions): number =>
  steps ?? sigmas?.length ?? LM_STEPS;

/** How far an image may move, for pixels in [-1, 1]; nothing where nothing holds it. */
export function radiusOf({ method, eps, norm = 'linf' }: PurifyingOptions): number | undefined {
  if (eps !== undefined) return 2 * eps;
  if (method === 'lm-adam' || method === 'diffpure') return undefined;
  return norm === 'linf' ? 2 * (8 / 255) : 2 * 0.5;
}

/** The size of a step for pixels in [-1, 1]. */
export function stepSizeOf(options: PurifyingOptions): number {
  const { method, norm = 'linf', stepSize } = options;
  if (stepSize !== undefined) return stepSize;
  if (method === 'lm-adam' || norm === 'linf') return 0.1;
  return (2.5 * radiusOf(options)!) / stepsOfLikelihood(options);
}

/**
 * Refuses what cannot be meant together; `name` says how an option is called where it was given.
 * @throws UsageError, one sentence.
 */
export function checkPurifying(
  { method, steps, eps, norm, stepSize, sigmas, tStar }: PurifyingOptions,
  name: (option: keyof PurifyingOptions) => string = (option) => option,
): void {
  const refuse = (message: string): never => {
    throw new UsageError(message);
  };
  if (eps !== undefined && (norm ?? 'linf') === 'linf' && eps > 1)
    refuse(`${name('eps')}: pixels are in [0, 1], and so is a linf radius: wanted such as 8/255, got ${eps}`);
  if (sigmas !== undefined && steps !== undefined && sigmas.length < steps)
    refuse(`${name('sigmas')}: ${sigmas.length} sigmas for ${steps} steps`);
  if (method === 'diffpure') {
    if (stepSize !== undefined)
      refuse(`${name('stepSize')}: diffpure has none, its steps are those of its noise levels`);
    if (sigmas && tStar !== undefined)
      refuse(`${name('sigmas')} and ${name('tStar')} exclude each other: the first sigma is where it begins`);
    if (sigmas?.some((sigma, i) => i > 0 && sigma >= sigmas[i - 1]!))
      refuse(`${name('sigmas')}: diffpure goes down, wanted falling sigmas, got ${sigmas.join(', ')}`);
  } else if (tStar !== undefined) refuse(`${name('tStar')} belongs to diffpure`);
}
