// The purifications by likelihood maximisation (Chen et al., ICML 2024), with the settings of the paper and
// of RDC's released code.

import type { Mix } from '../../graph/model.ts';
import { radius } from '../option-schemas.ts';
import { adamStep, clipStep, momentumStep, type Noising } from './likelihood.ts';
import { uniform } from './noise.ts';
import { type MoveLimit, moveLimit } from './projection.ts';
import {
  COMMON_OPTIONS,
  type CommonOptions,
  type PurificationEntry,
  type PurifyingModel,
} from './purification-entry.ts';
import { addsNoise, levelAt, levelsOfSigmas, noiseIndices } from './step-levels.ts';

/** The option that only likelihood maximisation has. */
export interface LikelihoodOptions {
  /**
   * Size of a step, for pixels in [-1, 1]: Adam's learning rate, 0.1; the length of a step of `lm-momentum`
   * and `lm-residual`, 0.1 in linf, in l2 such that 2 of 5 steps reach the ball's surface.
   */
  readonly stepSize?: number | undefined;
}

type Options = CommonOptions & LikelihoodOptions;

/** Steps, as published. */
const STEPS = 5;

/** Size of a step, as published. */
const STEP_SIZE = 0.1;

const stepsOf = ({ steps, sigmas }: Options): number => steps ?? sigmas?.length ?? STEPS;

/**
 * The published U(0.4, 0.6) is divided into `parts` equal intervals, and sigmas are drawn from their midpoints. The levels
 * that a model is opened with then do not depend on the draw.
 */
const DRAWN = { from: 0.4, to: 0.6, parts: 256 };

/** Returns every sigma that a step may have, in any draw. */
function possibleSigmas({ sigmas, steps }: Options): readonly number[] {
  const { from, to, parts } = DRAWN;
  const midpoint = (part: number) => from + ((part + 0.5) / parts) * (to - from);
  return sigmas?.slice(0, steps) ?? Array.from({ length: parts }, (_, part) => midpoint(part));
}

/** Returns the sigma of every step: those given, or drawn by the seed. */
export function sigmasOfSteps(options: Options): readonly number[] {
  const { sigmas, seed = 0, draw = 0 } = options;
  const possible = possibleSigmas(options);
  if (sigmas) return possible;
  const steps = stepsOf(options);
  return Array.from(
    { length: steps },
    (_, i) => possible[Math.floor(possible.length * uniform(seed, draw * steps + i))]!,
  );
}

/** Returns how every step noises the image. */
function noisings(method: string, options: Options, model: PurifyingModel): Noising[] {
  const { mixes } = model;
  const levels = sigmasOfSteps(options).map((sigma) => levelAt(sigma, model));
  const indexOf = noiseIndices(method, options, model, levels.length);
  const scaleOf = ({ a, b }: Mix) => (addsNoise(mixes) ? 1 : (b / a) ** 2);
  return levels.map((level, i) => {
    const mix = mixes[level]!;
    return { level, noise: indexOf(i), mix, scale: scaleOf(mix) };
  });
}

/** Returns how far `lm-momentum` and `lm-residual` let an image move: by default 8/255 in linf, 0.5 in l2, for [0, 1]. */
const limitOf = ({ eps, norm = 'linf' }: Options): MoveLimit =>
  moveLimit(eps ?? (norm === 'linf' ? 8 / 255 : 0.5), norm);

function momentumSize(options: Options): number {
  const { stepSize, norm = 'linf' } = options;
  return stepSize ?? (norm === 'linf' ? STEP_SIZE : (2.5 * limitOf(options).radius) / stepsOf(options));
}

const { sigmas, ...others } = COMMON_OPTIONS;
const options: PurificationEntry<LikelihoodOptions>['options'] = {
  ...others,
  stepSize: {
    ...radius,
    flags: '--step-size <size>',
    help: "lm-*: size of a step, for pixels in [-1, 1] (Adam's learning rate, or the length of a step)",
  },
  sigmas,
};

/** What all entries of likelihood maximisation have in common. */
const common = {
  options,
  drawSigmas: sigmasOfSteps,
  levels: (given: Options, model: Parameters<typeof levelsOfSigmas>[1]) =>
    levelsOfSigmas(possibleSigmas(given), model),
};

/** As RDC released it: Adam on the denoising loss. */
export const lmAdamEntry: PurificationEntry<LikelihoodOptions, 'lm-adam'> = {
  ...common,
  name: 'lm-adam',
  summary: "5 steps of Adam at 0.1 on the denoising loss, sigma drawn from U(0.4, 0.6) (RDC's released code)",
  noiseOnDevice: true,
  steps(given, model) {
    const { eps, norm, stepSize = STEP_SIZE } = given;
    const steps = noisings('lm-adam', given, model).map((noising, i) => adamStep(noising, i + 1, stepSize));
    return [...steps, clipStep(eps === undefined ? undefined : moveLimit(eps, norm))];
  },
};

/** Algorithm 1 of the paper: steps along the momentum of the normalised gradient, in a ball around the image. */
export const lmMomentumEntry: PurificationEntry<LikelihoodOptions, 'lm-momentum'> = {
  ...common,
  name: 'lm-momentum',
  summary:
    "5 steps of 0.1 along the sign of the momentum, in a ball of 8/255 (RDC's paper); l2: a ball of 0.5",
  noiseOnDevice: true,
  steps: (given, model) =>
    noisings('lm-momentum', given, model).map((noising) =>
      momentumStep(noising, momentumSize(given), limitOf(given)),
    ),
};

/** `lm-momentum` with x - D(x_s) in place of the gradient: a third of the work, but another algorithm. */
export const lmResidualEntry: PurificationEntry<LikelihoodOptions, 'lm-residual'> = {
  ...common,
  name: 'lm-residual',
  summary: "the same without the network's Jacobian, at a third of the cost",
  noiseOnDevice: false,
  steps: (given, model) =>
    noisings('lm-residual', given, model).map((noising) =>
      momentumStep(noising, momentumSize(given), limitOf(given), () => model.noise.of(noising.noise)),
    ),
};
