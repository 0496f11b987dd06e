// The interface between graph and pipeline: all that a stream of images needs to know of a network. Tests of the pipeline
// pass a fake model and run without a GPU.

/** One answer that a classifier can give: a class of the model, or a prompt. Several may share a classidx. */
export interface Candidate {
  readonly label: string;
  readonly classidx: number;
  /** The prompt, for models that are conditioned on text. */
  readonly prompt?: string;
}

/** The classidx of the candidate that stands for no class: the unconditional prediction. */
export const NO_CLASS = -1;

/** One noise level of the grid: a timestep `t` of a discrete model or a `sigma` of a continuous one. */
export interface Level {
  readonly t?: number;
  /** Standard deviation of the noise, in units of images in [-1, 1]. */
  readonly sigma?: number;
  /** Weight of this level's error in a candidate's weighted mean error. */
  readonly weight: number;
}

/**
 * Statistics of the errors that the images of the training set have under all classes at one level. An image is
 * unfamiliar if its errors are farther from those of every class than `threshold` (see `familiarity.ts`).
 */
export interface Familiar {
  /** The timestep or the sigma of the level. */
  readonly t?: number | undefined;
  readonly sigma?: number | undefined;
  /** `[image's class, class]`: mean square root of the error under a class, over the images of a class. */
  readonly means: readonly (readonly number[])[];
  /** `[class, class]`: inverse of the covariance of these square roots within the classes of images. */
  readonly precision: readonly (readonly number[])[];
  /** Squared Mahalanobis distance beyond which an image is unfamiliar. */
  readonly threshold: number;
  /** Share of held-out training images beyond the threshold, in [0, 1]. */
  readonly falseAlarms: number;
}

/** Signal scale `a` and noise scale `b` of a level: the noised image is x_t = a·x0 + b·eps. */
export interface Mix {
  readonly a: number;
  readonly b: number;
}

/**
 * A batch of evaluations as index arrays of equal length, at most `Model.batchSize`: the slot of the image, the index in
 * `candidates`, the index in `levels`, and the index of the noise.
 */
export interface EvaluationBatch {
  readonly slot: Uint32Array;
  readonly candidate: Uint32Array;
  readonly level: Uint32Array;
  readonly noise: Uint32Array;
  /** The seed of each evaluation's noise. Default: `Model.seed`. A model with a file of noises ignores seeds. */
  readonly seed?: BigUint64Array | undefined;
}

/** Noised images that the caller made: rows [c, h, w] one after the other, with the candidate and the level of each. */
export interface PredictionBatch {
  readonly xt: Float32Array;
  readonly candidate: Uint32Array;
  readonly level: Uint32Array;
}

/** The errors of a batch, and the gradient of each with respect to the image x0 in its slot, rows [c, h, w]. */
export interface ErrorGradients {
  readonly errors: Float32Array;
  readonly gradients: Float32Array;
}

/** Gradients and predictions of a model of pixels. Each network is planned when it is first needed. */
export interface Differentiable {
  /** Signal scale and noise scale of each of `Model.levels`. */
  readonly mixes: readonly Mix[];
  /**
   * Returns what `Model.errors` returns, and the gradient of each error with respect to its image: through the noised
   * image into the network and, for a distance from the image itself, through that too. Takes at most
   * `gradientBatchSize` evaluations.
   */
  gradients(batch: EvaluationBatch): Promise<ErrorGradients>;
  readonly gradientBatchSize: number;
  /**
   * Returns, for each view, the gradient [c, h, w] of a weighted sum of errors. Takes at most `viewBatchSize` views. Absent
   * unless one forward pass predicts for all classes, so that one backward pass is enough too.
   */
  viewGradients?(views: Views, weighted: WeightedCandidates): Promise<Float32Array>;
  readonly viewBatchSize?: number;
  /** Returns the predicted noise eps_hat(x_t) of each row. The denoised image is (x_t - b·eps_hat) / a. */
  predict(batch: PredictionBatch): Promise<Float32Array>;
  /** Returns rows Jᵀ·v, where J is the Jacobian of `predict` at x_t, and v the rows of `cotangent` (a vjp). */
  pullBack(batch: PredictionBatch & { readonly cotangent: Float32Array }): Promise<Float32Array>;
}

/** Noised images that candidates share: index arrays of equal length of the slot, the level and the noise. */
export type Views = Omit<EvaluationBatch, 'candidate'>;

/** The terms of weighted sums of errors, one sum per view: arrays of equal length. A candidate occurs once per view. */
export interface WeightedCandidates {
  /** Indices of views, ascending. */
  readonly view: Uint32Array;
  readonly candidate: Uint32Array;
  /** The factor of the candidate's error. */
  readonly weight: Float32Array;
}

/**
 * How an image is brought to the shape of a model. `centre` resizes the shorter side and crops the centre, as torchvision
 * does. `adm` first halves the image while its shorter side is at least twice as long, as ADM and DiT were trained.
 */
export type Crop = 'centre' | 'adm';

/** Where the pixels of a model's image were in the file that they came from. Stable Diffusion XL takes it as an input. */
export interface ImageGeometry {
  /** Height and width of the whole image, in pixels of the file after its EXIF orientation. */
  readonly height: number;
  readonly width: number;
  /** Rows above and columns to the left that were cut off after the image was resized. */
  readonly top: number;
  readonly left: number;
}

/** How noise indices belong to levels; see `Model.noisePairing`. */
export type NoisePairing = 'level' | 'visit';

/** A loaded classifier with a fixed batch size. Calls may overlap; they are answered in the order of the calls. */
export interface Model {
  readonly name: string;
  /** Name of the adapter that it runs on. */
  readonly device?: string | undefined;
  /** How evaluations store weights and activations; sums and errors are f32 with either. Default: f32. */
  readonly precision?: 'f32' | 'f16' | undefined;
  /** What changed the model's files when it was opened, such as LoRAs, by option; for records of runs. */
  readonly overlays?: Readonly<Record<string, string>> | undefined;
  /** Shape of the images it takes; their values are in [-1, 1]. */
  readonly inputShape: readonly [channels: number, height: number, width: number];
  /** How images are brought to that shape. Default: `centre`. */
  readonly crop?: Crop | undefined;
  readonly candidates: readonly Candidate[];
  /** The grid, in the order in which its levels are best visited. */
  readonly levels: readonly Level[];
  /** The largest number of evaluations in a batch. */
  readonly batchSize: number;
  /** The number of images that can be on the device at once. */
  readonly slots: number;
  /** Calibration: probabilities are the softmax of -(weighted mean error) / temperature. */
  readonly temperature: number;
  /**
   * Noise-to-signal scale of error gaps, in units of errors whose weights have mean 1. If a candidate trails the best by
   * a summed weighted error S, the odds that it still overtakes the best by the end of the grid are about
   * exp(-2 S / kappa). For independent levels, kappa = Var(difference) / E(difference) at one level. It is estimated from
   * recorded errors, and lets the sequential strategy decide after fewer levels.
   */
  readonly kappa?: number | undefined;
  /** Seed of the noise of evaluations that have no seed of their own. Undefined for a model with a file of noises. */
  readonly seed?: bigint | undefined;
  /**
   * Which noise an image is mixed with at a level. `level` (the default): noise index i belongs to level i of `levels`, so
   * that all strategies compare the same noised images. `visit`, for a file of noises: the k-th level that is evaluated
   * takes noise k.
   */
  readonly noisePairing?: NoisePairing | undefined;
  /** How to recognise images unlike the training set. Valid for all classes of the model and its own distance only. */
  readonly familiar?: Familiar | undefined;
  /** Bytes that it takes on the device: weights, activations of every planned batch, images in slots. */
  readonly deviceBytes?: number | undefined;
  /**
   * Puts an image [c, h, w] in [-1, 1] into a slot, through the encoder of a latent model. `geometry` matters only to models
   * that take the size of images as an input; by default the image is a whole one of the model's size. Throws `RangeError`
   * if the image has another length than `inputShape`.
   */
  encode(slot: number, image: Float32Array, geometry?: ImageGeometry): void;
  /**
   * Returns the error of each evaluation of a batch: the distance between noise and prediction, averaged over channels and
   * pixels, without a weight. Rejects with `RangeError` if the batch is too large, `OutOfMemoryError`, or
   * `DeviceLostError` if the device is lost.
   */
  errors(batch: EvaluationBatch): Promise<Float32Array>;
  /** Gradients and predictions; undefined for models of latents. */
  readonly differentiable?: Differentiable | undefined;
  /** Frees what it holds on the device. Leaves a device that the host passed in alone. */
  close(): void;
}
