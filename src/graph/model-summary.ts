// What a model folder states about its images, levels and classes, without reading its weights.

import type { Distance, Residual } from '../kernels/diffusion/error-reduction.ts';
import type { Crop, Familiar, Level } from './model.ts';

/** What a model folder says, without its weights. */
export interface ModelSummary {
  readonly name: string;
  /** Whether candidates are classes of the model, or prompts (each candidate then has a `prompt`). */
  readonly conditioning: 'class' | 'text';
  readonly inputShape: readonly [channels: number, height: number, width: number];
  /** See `Model.crop`. */
  readonly crop?: Crop | undefined;
  /** Where the side of the image can be chosen: what it must be a multiple of. */
  readonly sideMultiple?: number | undefined;
  /** The names of its classes, in the order of their numbers; none for text models. */
  readonly labels: readonly string[];
  /** Predictions of one run of a multi-head network: all classes, and perhaps one without a class. */
  readonly heads?: number | undefined;
  /** Timesteps of the schedule; 0 of models whose levels are sigmas. */
  readonly numTrainTimesteps: number;
  /** Noise in units of the image, b / a, of every timestep; models whose levels are sigmas have none. */
  readonly timestepSigmas?: readonly number[] | undefined;
  /** Standard deviation of the data that a model of sigmas was made for; 0.5 if the folder does not state it. */
  readonly sigmaData?: number | undefined;
  /**
   * The model's own grid in visiting order: its card's, or even timesteps of equal weight, or RDC's sigmas with its
   * weights.
   */
  readonly levels: readonly Level[];
  readonly distance: Distance;
  /** What errors are distances of. Default: noises. */
  readonly residual?: Residual | undefined;
  readonly temperature: number;
  /** See `Model.kappa`. */
  readonly kappa?: number | undefined;
  /** See `Model.familiar`. */
  readonly familiar?: Familiar | undefined;
}
