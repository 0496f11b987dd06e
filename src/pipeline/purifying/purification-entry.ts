// What all purifications have in common: the options that each of them has, and what is known of each by name.

import type { Level, Mix } from '../../graph/model.ts';
import type { ModelSummary } from '../../graph/model-summary.ts';
import { NORMS, type Norm } from '../norms.ts';
import type { Entry, OptionsFor, OptionValues } from '../option.ts';
import { choice, radius, sizes, stepCount } from '../option-schemas.ts';
import type { PurificationStep } from './chain.ts';
import type { HostNoise } from './noise.ts';

/** Options of every purification. */
export interface CommonOptions {
  /**
   * Steps: 5 of likelihood maximisation; of `diffpure` t* (one per timestep), or 18 if a model's levels are
   * sigmas. If sigmas are given, as many as those.
   */
  readonly steps?: number | undefined;
  /**
   * How far an image may move, for pixels in [0, 1]. `lm-momentum` and `lm-residual`: 8/255 in linf, 0.5 in
   * l2; the others do not limit it by default.
   */
  readonly eps?: number | undefined;
  /** The norm of `eps` and of the steps of `lm-momentum` and `lm-residual`; linf. */
  readonly norm?: Norm | undefined;
  /**
   * The sigma of every step (noise in units of the image; a model of timesteps takes the first timestep whose sigma is
   * at least as large). Without them likelihood maximisation draws from U(0.4, 0.6), and `diffpure` goes down from t*.
   */
  readonly sigmas?: readonly number[] | undefined;
  /** Seed of the sigmas drawn, and of the noise if none is given; 0. */
  readonly seed?: number | undefined;
  /** Which of several independent purifications of one seed it is, from 0 on. */
  readonly draw?: number | undefined;
}

/** The common options that the command line has. */
type CommonValues = Pick<CommonOptions, 'steps' | 'eps' | 'norm' | 'sigmas'>;

export const COMMON_OPTIONS: OptionsFor<CommonValues> = {
  steps: { ...stepCount, flags: '--steps <n>', help: 'steps per image' },
  eps: {
    ...radius,
    flags: '--eps <radius>',
    help: 'how far a purification may move an image, for pixels in [0, 1]: 8/255, 0.5',
  },
  norm: { ...choice(NORMS), flags: '--norm <name>', help: 'the norm of that distance: linf or l2 (linf)' },
  sigmas: {
    flags: '--sigmas <list|grid>',
    help: 'the sigma of every step: 0.41,0.47,... or linspace:A:B:N',
    schema: sizes,
    expected: 'numbers above 0, separated by commas, or linspace:A:B:N',
  },
};

/** What a chain of steps is made for: an opened model, its levels by what they do to an image, and the noise. */
export interface PurifyingModel {
  readonly name: string;
  readonly mixes: readonly Mix[];
  readonly noise: HostNoise;
}

/** Names an option in messages. */
export type Title = (option: string) => string;

/** A purification by name; `Own` are the options that not all of them have. */
export interface PurificationEntry<Own = OptionValues, Name extends string = string>
  extends Entry<CommonValues & Own, Name> {
  /** True if the model itself mixes its noise in, so that a file of noise must be given to the model. */
  readonly noiseOnDevice: boolean;
  /** Checks what does not fit together. @throws UsageError */
  check?(options: CommonOptions & Own, title: Title): void;
  /** Draws the sigma of every step; absent if nothing is drawn. */
  drawSigmas?(options: CommonOptions & Own): readonly number[];
  /** Returns the levels that a model is opened with. @throws UsageError if the model does not have them. */
  levels(options: CommonOptions & Own, model: ModelSummary): Level[];
  /**
   * Makes the chain of steps.
   * @throws UsageError or ModelError if model, options and noise do not fit together.
   */
  steps(options: CommonOptions & Own, model: PurifyingModel): PurificationStep[];
}
