// DiffPure (Nie et al., ICML 2022) as a purification by name: its levels, and its chain of steps.

import { z } from 'zod';
import { UsageError } from '../../errors.ts';
import { integer } from '../option-schemas.ts';
import { type DiffusionLevel, heunStep, noisingStep, reverseStep } from './diffusion-steps.ts';
import { clipStep } from './likelihood.ts';
import { moveLimit } from './projection.ts';
import { COMMON_OPTIONS, type CommonOptions, type PurificationEntry } from './purification-entry.ts';
import { addsNoise, levelsOfSigmas, levelsOfTimesteps, noiseIndices } from './step-levels.ts';

/** DiffPure's t*, out of 1000, by data set and threat (and for one by the classifier after it). */
export const T_STAR: Readonly<Record<string, number>> = {
  'cifar10-linf': 100,
  'cifar10-linf-rn50': 125,
  'cifar10-l2': 75,
  'cifar10-l2-rn50': 125,
  'cifar10-stadv': 125,
  'imagenet-linf': 150,
  'celebahq-bpda': 500,
};

/** The option that only DiffPure has. */
export interface DiffpureOptions {
  /** `diffpure`: the timestep, out of 1000, that images are noised to; 100, or sigma 0.5 if levels are sigmas. */
  readonly tStar?: number | undefined;
}

type Options = CommonOptions & DiffpureOptions;

/** EDM's sigmas (Karras et al. 2022, equation 5), with the settings of RDC's purification by EDM. */
const EDM = { steps: 18, sigmaMin: 0.002, sigmaMax: 0.5, rho: 7 };

/** Returns sigma of the continuous VP-SDE with beta(t) = 0.1 + 19.9 t at t* out of 1000. */
const vpSigma = (tStar: number): number => {
  const t = tStar / 1000;
  return Math.sqrt(Math.exp((19.9 / 2) * t * t + 0.1 * t) - 1);
};

function edmSigmas({ sigmas, steps, tStar }: Options): number[] {
  if (sigmas) return sigmas.slice(0, steps);
  const { steps: published, sigmaMin, sigmaMax, rho } = EDM;
  const count = steps ?? published;
  const top = tStar === undefined ? sigmaMax : vpSigma(tStar);
  if (top <= sigmaMin || count === 1) return [top];
  const [first, last] = [top ** (1 / rho), sigmaMin ** (1 / rho)];
  return Array.from({ length: count }, (_, i) => (first + (i / (count - 1)) * (last - first)) ** rho);
}

const T_STAR_DEFAULT = 100;

/** Returns `steps` timesteps from t* (out of 1000, for a model of T timesteps) down to 0, or every one of them. */
function timestepsDown({ steps, tStar = T_STAR_DEFAULT }: Options, T: number): number[] {
  const count = Math.max(1, Math.round((tStar * T) / 1000));
  const taken = Math.min(steps ?? count, count);
  return Array.from({ length: taken }, (_, k) => Math.ceil((count * (taken - k)) / taken) - 1);
}

export const diffpureEntry: PurificationEntry<DiffpureOptions, 'diffpure'> = {
  name: 'diffpure',
  summary: "noises to t* = 100 of 1000 and denoises step by step; EDM models by Heun's method from sigma 0.5",
  options: {
    ...COMMON_OPTIONS,
    tStar: {
      flags: '--t-star <t|name>',
      help: `diffpure: the timestep, out of 1000, that images are noised to; or as published for ${Object.keys(T_STAR).join(', ')}`,
      schema: z.union([
        z
          .string()
          .refine((name) => Object.hasOwn(T_STAR, name))
          .transform((name) => T_STAR[name]!),
        integer(1, 1000),
      ]),
      expected: `an integer from 1 to 1000, or one of ${Object.keys(T_STAR).join(', ')}`,
    },
  },
  noiseOnDevice: false,
  check({ sigmas, tStar }, title) {
    if (sigmas && tStar !== undefined)
      throw new UsageError(
        `${title('sigmas')} and ${title('tStar')} exclude each other: the first sigma is where it begins`,
      );
    if (sigmas?.some((sigma, i) => i > 0 && sigma >= sigmas[i - 1]!))
      throw new UsageError(
        `${title('sigmas')}: expected falling sigmas, as diffpure goes down; got ${sigmas.join(', ')}`,
      );
  },
  levels: (options, model) =>
    model.timestepSigmas && !options.sigmas
      ? levelsOfTimesteps(timestepsDown(options, model.numTrainTimesteps))
      : levelsOfSigmas(edmSigmas(options), model),
  /**
   * Goes down all levels of the model. Noise 0 takes an image to the highest level; after it, step k of the
   * VP-SDE takes noise k, and Heun's steps take none.
   */
  steps(options, model) {
    const { mixes, noise } = model;
    const { eps, norm } = options;
    const down = mixes
      .map((mix, level): DiffusionLevel => ({ level, mix }))
      .sort((one, other) => other.mix.b / other.mix.a - one.mix.b / one.mix.a);
    const ordinary = addsNoise(mixes);
    const indexOf = noiseIndices('diffpure', options, model, ordinary ? 1 : 1 + down.length);
    const noiseOf = (i: number) => () => noise.of(indexOf(i));
    const steps = down.map((at, k) =>
      ordinary
        ? heunStep(at, down[k + 1])
        : reverseStep(at, down[k + 1]?.mix ?? { a: 1, b: 0 }, noiseOf(k + 1)),
    );
    const last = clipStep(eps === undefined ? undefined : moveLimit(eps, norm));
    return [noisingStep(down[0]!.mix, noiseOf(0)), ...steps, last];
  },
};
