// The seam between graph and pipeline: everything a stream needs to know of a network. Pipeline tests put a
// fake here and run without a GPU.

/** One thing an image may turn out to be: a class of the model, or a prompt. Several may share a classidx. */
export interface Candidate {
  readonly label: string;
  readonly classidx: number;
  /** The text behind it, for text-conditioned models. */
  readonly prompt?: string;
}

/** The classidx of the candidate that stands for no class: the unconditional prediction. */
export const NO_CLASS = -1;

/** One noise level of the grid: a timestep of a discrete model or a sigma of a continuous one. */
export interface Level {
  readonly t?: number;
  readonly sigma?: number;
  /** Weight of this level's error in a candidate's weighted mean error. */
  readonly weight: number;
}

/**
 * What images like those that a model was trained on look like to it, by the errors of all its classes at one level.
 * An image whose errors are farther from every class than `threshold` is unfamiliar (see `familiarity.ts`).
 */
export interface Familiar {
  /** The level, by the timestep or the sigma that it has. */
  readonly t?: number | undefined;
  readonly sigma?: number | undefined;
  /** [class, class]: mean square root of the error in every class, of images of each class. */
  readonly means: readonly (readonly number[])[];
  /** [class, class]: inverse of their covariance within the classes. */
  readonly precision: readonly (readonly number[])[];
  /** Squared distance beyond which an image is unfamiliar. */
  readonly threshold: number;
  /** Share of held-out training images beyond the threshold. */
  readonly falseAlarms: number;
}

/** How a level mixes an image with noise: x_t = a·x0 + b·eps. */
export interface Mix {
  readonly a: number;
  readonly b: number;
}

/**
 * A batch of evaluations as four index arrays of equal length, at most `Model.batchSize`:
 * image slot, index into `candidates`, index into `levels`, and index of the noise. With `seed`, evaluation i takes its
 * noise from `seed[i]` instead of the model's own seed; a model with a file of noises ignores seeds.
 */
export interface EvaluationBatch {
  readonly slot: Uint32Array;
  readonly candidate: Uint32Array;
  readonly level: Uint32Array;
  readonly noise: Uint32Array;
  readonly seed?: BigUint64Array | undefined;
}

/** Noised images that a caller made itself, as rows [c, h, w] one after the other, and what they are thought to be. */
export interface PredictionBatch {
  readonly xt: Float32Array;
  readonly candidate: Uint32Array;
  readonly level: Uint32Array;
}

/** Errors of a batch, and the gradient of each with regard to the image x0 in its slot, rows [c, h, w]. */
export interface ErrorGradients {
  readonly errors: Float32Array;
  readonly gradients: Float32Array;
}

/** What a model can tell beyond errors: pixel models can, latent ones cannot. Made ready when first asked for. */
export interface Differentiable {
  /** Of the model's levels, in their order. */
  readonly mixes: readonly Mix[];
  /**
   * As `Model.errors`, with the gradient of each error with regard to its image: through the noised image into the
   * network and, where the error compares with the image itself, through that too. Batches of at most
   * `gradientBatchSize`.
   */
  gradients(batch: EvaluationBatch): Promise<ErrorGradients>;
  readonly gradientBatchSize: number;
  /**
   * The gradients [c, h, w], by view, of weighted sums of errors: where all classes come from one run of the network,
   * the way back is one too. Undefined where each candidate is a run of its own. At most `viewBatchSize` views.
   */
  viewGradients?(views: Views, weighted: WeightedCandidates): Promise<Float32Array>;
  readonly viewBatchSize?: number;
  /** The predicted noise eps_hat(x_t) of each row; the denoised image is (x_t - b·eps_hat) / a. */
  predict(batch: PredictionBatch): Promise<Float32Array>;
  /** Rows Jᵀ·v, where J is the Jacobian of `predict` at x_t and v the rows of `cotangent`. */
  pullBack(batch: PredictionBatch & { readonly cotangent: Float32Array }): Promise<Float32Array>;
}

/** Noised images: the image in a slot at a level with a noise, index arrays of equal length. */
export type Views = Omit<EvaluationBatch, 'candidate'>;

/** Errors of candidates at a view, each at most once, and what they are multiplied by: arrays of equal length. */
export interface WeightedCandidates {
  /** Ascending indices of views. */
  readonly view: Uint32Array;
  readonly candidate: Uint32Array;
  readonly weight: Float32Array;
}

/**
 * How an image becomes the square a model wants: `centre` resizes the short side and crops the centre
 * (torchvision); `adm` first halves it while it is at least twice as large (the crop ADM and DiT were trained with).
 */
export type Crop = 'centre' | 'adm';

/** How noise indices are paired with levels; see `Model.noisePairing`. */
export type NoisePairing = 'level' | 'visit';

/** A loaded classifier at a fixed batch size. Calls may overlap; results come in the order of the calls. */
export interface Model {
  readonly name: string;
  /** The adapter that it runs on, for results and reports. */
  readonly device?: string | undefined;
  /** The image it takes: [channels, height, width] with values in [-1, 1]. */
  readonly inputShape: readonly [channels: number, height: number, width: number];
  /** How images are brought to that shape: by default their short side is resized and the centre cropped. */
  readonly crop?: Crop | undefined;
  readonly candidates: readonly Candidate[];
  /** The grid, in the order in which levels are best visited. */
  readonly levels: readonly Level[];
  /** Most evaluations of a batch. */
  readonly batchSize: number;
  /** Images that can be in flight. */
  readonly slots: number;
  /** Divides differences of weighted mean errors before the softmax, so that probabilities are calibrated. */
  readonly temperature: number;
  /**
   * How much noise comes with a gap: a candidate whose errors (weights of mean 1) add up to S more than the best one's
   * overtakes it by the end of the grid with odds exp(-2 S / kappa). Of independent levels it is variance / mean of the
   * difference at one. Known from recorded errors, it lets the sequential strategy decide on fewer levels.
   */
  readonly kappa?: number | undefined;
  /** The seed of its noise, for evaluations that bring none. Undefined for a model that has a file of noises. */
  readonly seed?: bigint | undefined;
  /**
   * Which noise an image meets at a level. `level` (the default): noise index i belongs to level i of `levels`, so that
   * every strategy compares the same noised images. `visit`, for a file of noises: the k-th level evaluated uses noise k.
   */
  readonly noisePairing?: NoisePairing | undefined;
  /** Tells images unlike those that the model was trained on; holds for all its classes and its own distance. */
  readonly familiar?: Familiar | undefined;
  /** Bytes it holds on the device: weights, activations of every planned batch, images in slots. */
  readonly deviceBytes?: number | undefined;
  /** Puts an image [c, h, w] in [-1, 1] into a slot (and through the encoder of a latent model). */
  encode(slot: number, image: Float32Array): void;
  /**
   * The distance between noise and prediction of every evaluation (mean over channels and pixels, before any
   * weight), in the batch's order. Rejects with `DeviceLostError` when the device goes away.
   */
  errors(batch: EvaluationBatch): Promise<Float32Array>;
  /** Gradients and predictions, for models of pixels. */
  readonly differentiable?: Differentiable | undefined;
  /** Frees what it holds on the device. A device passed in by the host is left alone. */
  close(): void;
}
