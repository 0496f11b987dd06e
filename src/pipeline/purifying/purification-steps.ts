// From what is asked for to a chain of steps: which levels a model is opened at, and what each step looks at.

import { ModelError, UsageError } from '../../errors.ts';
import type { Level, Mix } from '../../graph/model.ts';
import type { ModelSummary } from '../../graph/model-summary.ts';
import type { PurificationStep } from './chain.ts';
import { type DiffusionLevel, heunStep, noisingStep, reverseStep } from './diffpure.ts';
import { adamStep, clipStep, momentumStep, type Noising } from './likelihood.ts';
import { checkPurifying, type PurifyingOptions, radiusOf, stepSizeOf, stepsOfLikelihood } from './methods.ts';
import { type HostNoise, uniform } from './noise.ts';
import type { MoveLimit } from './projection.ts';

/** What sigmas are drawn from: the midpoints of so many parts of [0.4, 0.6], so that a model's levels can be fixed. */
const DRAWN = { from: 0.4, to: 0.6, parts: 256 };

/** Every sigma that a step of likelihood maximisation may have, in any draw. */
function sigmasOfDraws({ sigmas, steps }: PurifyingOptions): readonly number[] {
  const { from, to, parts } = DRAWN;
  const midpoint = (part: number) => from + ((part + 0.5) / parts) * (to - from);
  return sigmas?.slice(0, steps) ?? Array.from({ length: parts }, (_, part) => midpoint(part));
}

/** The sigma of every step of likelihood maximisation. */
export function sigmasOfSteps(options: PurifyingOptions): readonly number[] {
  const { sigmas, seed = 0, draw = 0 } = options;
  const all = sigmasOfDraws(options);
  if (sigmas) return all;
  const steps = stepsOfLikelihood(options);
  return Array.from(
    { length: steps },
    (_, i) => all[Math.floor(all.length * uniform(seed, draw * steps + i))]!,
  );
}

/** EDM's sigmas (Karras et al. 2022, equation 5): as RDC's purification by EDM has them. */
const EDM = { steps: 18, sigmaMin: 0.002, sigmaMax: 0.5, rho: 7 };

/** Sigma of the continuous VP-SDE with beta(t) = 0.1 + 19.9 t at t* of 1000. */
const vpSigma = (tStar: number): number => {
  const t = tStar / 1000;
  return Math.sqrt(Math.exp((19.9 / 2) * t * t + 0.1 * t) - 1);
};

function edmSigmas({ sigmas, steps, tStar }: PurifyingOptions): number[] {
  if (sigmas) return sigmas.slice(0, steps);
  const { steps: published, sigmaMin, sigmaMax, rho } = EDM;
  const count = steps ?? published;
  const top = tStar === undefined ? sigmaMax : vpSigma(tStar);
  if (top <= sigmaMin || count === 1) return [top];
  const [first, last] = [top ** (1 / rho), sigmaMin ** (1 / rho)];
  return Array.from({ length: count }, (_, i) => (first + (i / (count - 1)) * (last - first)) ** rho);
}

const T_STAR_DEFAULT = 100;

/** Timesteps from t* of 1000 down to 0, `steps` of them, or every one. */
function timestepsDown({ steps, tStar = T_STAR_DEFAULT }: PurifyingOptions, T: number): number[] {
  const count = Math.max(1, Math.round((tStar * T) / 1000));
  const taken = Math.min(steps ?? count, count);
  return Array.from({ length: taken }, (_, k) => Math.ceil((count * (taken - k)) / taken) - 1);
}

/** The first timestep whose sigma is not below the one wanted. */
function timestepAt(sigma: number, sigmas: readonly number[], name: string): number {
  const t = sigmas.findIndex((own) => own >= sigma);
  if (t < 0) throw new UsageError(`${name}: sigma ${sigma} is above the model's last, ${sigmas.at(-1)}`);
  return t;
}

/**
 * The levels that a model is opened with for a purification: those of its steps.
 * @throws UsageError for options that cannot be meant, or that the model does not reach.
 */
export const purificationLevels =
  (options: PurifyingOptions) =>
  ({ name, timestepSigmas, numTrainTimesteps }: ModelSummary): Level[] => {
    checkPurifying(options);
    const { method, sigmas } = options;
    const diffusion = method === 'diffpure';
    if (!timestepSigmas) {
      const wanted = diffusion ? edmSigmas(options) : sigmasOfDraws(options);
      return [...new Set(wanted)].map((sigma) => ({ sigma, weight: 1 }));
    }
    const timesteps =
      diffusion && !sigmas
        ? timestepsDown(options, numTrainTimesteps)
        : (diffusion ? edmSigmas(options) : sigmasOfDraws(options)).map((sigma) =>
            timestepAt(sigma, timestepSigmas, name),
          );
    return [...new Set(timesteps)].map((t) => ({ t, weight: 1 }));
  };

/** What a chain is made for: the levels of an opened model by what they do to an image, and the noise. */
export interface PurifyingFacts {
  readonly name: string;
  readonly mixes: readonly Mix[];
  readonly noise: HostNoise;
}

/** How far rounding may put a level's sigma beside the one it was opened for. */
const ROUNDING = 1e-6;

/** The level with the smallest sigma that is not below the one wanted. @throws UsageError where there is none. */
function levelAt(sigma: number, { name, mixes }: PurifyingFacts): number {
  const own = mixes.map(({ a, b }) => b / a);
  const enough = own.map((value, i) => ({ value, i })).filter(({ value }) => value >= sigma * (1 - ROUNDING));
  const least = enough.sort((one, other) => one.value - other.value)[0];
  if (!least)
    throw new UsageError(
      `${name}: opened without a level of sigma ${sigma}; its largest is ${Math.max(...own)}`,
    );
  return least.i;
}

/** Whether a model's levels are sigmas that are added to an image (EDM), rather than timesteps. */
const addsNoise = (mixes: readonly Mix[]): boolean => mixes.every(({ a }) => a === 1);

/**
 * The chain of steps that purifies an image, the last of which clips it. The same for every image: the sigma and the
 * noise of a step are those of its number (of the seed, or the lists), for every image, whatever batch it is in.
 *
 * `diffpure` goes down all levels of the model: it is opened with `purificationLevels`.
 * @throws UsageError for options that cannot be meant; ModelError where fewer noises are given than it takes.
 */
export function purificationSteps(options: PurifyingOptions, facts: PurifyingFacts): PurificationStep[] {
  checkPurifying(options);
  const { method, norm = 'linf', draw = 0 } = options;
  const { mixes, noise } = facts;
  const radius = radiusOf(options);
  const ball: MoveLimit | undefined = radius === undefined ? undefined : { norm, radius };
  const take = (needed: number): ((i: number) => number) => {
    if (noise.count !== undefined && noise.count < (draw + 1) * needed)
      throw new ModelError(
        `${facts.name}: ${noise.count} noises are given, ${method} takes ${(draw + 1) * needed}`,
      );
    return (i) => noise.first + draw * needed + i;
  };
  if (method === 'diffpure') return [...diffusionSteps(facts, take), clipStep(ball)];

  const levels = sigmasOfSteps(options).map((sigma) => levelAt(sigma, facts));
  const indexOf = take(levels.length);
  const image = addsNoise(mixes);
  const looks = levels.map((level, i): Noising => {
    const mix = mixes[level]!;
    return { level, noise: indexOf(i), mix, scale: image ? 1 : (mix.b / mix.a) ** 2 };
  });
  const size = stepSizeOf(options);
  switch (method) {
    case 'lm-adam':
      return [...looks.map((look, i) => adamStep(look, i + 1, size)), clipStep(ball)];
    case 'lm-momentum':
      return looks.map((look) => momentumStep(look, size, ball!));
    case 'lm-residual':
      return looks.map((look) => momentumStep(look, size, ball!, () => noise.of(look.noise)));
    default:
      return method satisfies never;
  }
}

/** Noise 0 takes an image to the highest level; behind it, step k of the VP-SDE takes noise k, Heun's steps none. */
function diffusionSteps(
  { mixes, noise }: PurifyingFacts,
  take: (needed: number) => (i: number) => number,
): PurificationStep[] {
  const down = mixes
    .map((mix, level): DiffusionLevel => ({ level, mix }))
    .sort((one, other) => other.mix.b / other.mix.a - one.mix.b / one.mix.a);
  const ordinary = addsNoise(mixes);
  const indexOf = take(ordinary ? 1 : 1 + down.length);
  const eps = (i: number) => () => noise.of(indexOf(i));
  const steps = down.map((at, k) =>
    ordinary ? heunStep(at, down[k + 1]) : reverseStep(at, down[k + 1]?.mix ?? { a: 1, b: 0 }, eps(k + 1)),
  );
  return [noisingStep(down[0]!.mix, eps(0)), ...steps];
}
