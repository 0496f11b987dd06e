// What a model folder states about its images, levels and classes; its weights are not read.

import type { Distance, Residual } from '../kernels/diffusion/error-reduction.ts';
import type { Crop, Familiar, Level } from './model.ts';

/** What a model folder states without its weights. */
export interface ModelSummary {
  readonly name: string;
  /** Whether candidates are classes of the model, or prompts (each candidate then has a `prompt`). */
  readonly conditioning: 'class' | 'text';
  readonly inputShape: readonly [channels: number, height: number, width: number];
  /** See `Model.crop`. */
  readonly crop?: Crop | undefined;
  /** If the side of the image can be chosen: the number of pixels that it must be a multiple of. */
  readonly sideMultiple?: number | undefined;
  /** Names of the classes, by class index; empty for text models. */
  readonly labels: readonly string[];
  /** Number of predictions per forward pass of a multi-head network: one per class, and perhaps one without a class. */
  readonly heads?: number | undefined;
  /** Number of timesteps of the schedule; 0 for models whose levels are sigmas. */
  readonly numTrainTimesteps: number;
  /** Noise scale over signal scale, b / a, of every timestep; undefined for models whose levels are sigmas. */
  readonly timestepSigmas?: readonly number[] | undefined;
  /** Standard deviation of the training data of a model whose levels are sigmas. Default: 0.5. */
  readonly sigmaData?: number | undefined;
  /**
   * The model's own grid in visiting order: the one of its card, or else evenly spaced timesteps of equal weight, or the
   * sigmas of RDC with their weights.
   */
  readonly levels: readonly Level[];
  readonly distance: Distance;
  /** What the distance is taken of. Default: the noise and its prediction. */
  readonly residual?: Residual | undefined;
  /** See `Model.temperature`. */
  readonly temperature: number;
  /** See `Model.kappa`. */
  readonly kappa?: number | undefined;
  /** See `Model.familiar`. */
  readonly familiar?: Familiar | undefined;
}
