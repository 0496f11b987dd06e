// The values of a stream: images, failures and results, and the log of single evaluations.

import type { ImageGeometry, Model } from '../graph/model.ts';

/** An image that fits a model: `pixels` [c, h, w] in [-1, 1], and the `path` that it came from. */
export interface ImageItem {
  readonly path: string;
  readonly pixels: Float32Array;
  /** Where the pixels were in the file; only Stable Diffusion XL takes it. Default: a whole image of the model's size. */
  readonly geometry?: ImageGeometry | undefined;
}

/** An item that could not be classified. It passes through all stages as a value, and the stream goes on. */
export interface ItemFailure {
  readonly path: string;
  readonly error: { readonly code: string; readonly message: string };
}

/** One class of a result, represented by its best candidate. */
export interface RankedClass {
  readonly label: string;
  readonly classidx: number;
  /** In [0, 1]. The probabilities of all classes, including those that are not in `top`, add up to 1. */
  readonly probability: number;
  /** Weighted mean error, comparable between the entries (see `verdict.ts`). */
  readonly error: number;
  /** Standard error of the gap between this error and the best one; 0 for the best itself. */
  readonly stderr: number;
  /** Number of evaluations of the class, over all its candidates. */
  readonly evaluations: number;
  /** The best candidate's prompt, for text models. */
  readonly prompt?: string;
  /** -log p(x | class) up to a constant, if energies are requested (see `energyOf`). */
  readonly energy?: number;
}

/** The result of one image, with the fields of a line of the output. */
export interface Classified {
  readonly path: string;
  readonly label: string;
  readonly classidx: number;
  readonly probability: number;
  readonly top: readonly RankedClass[];
  /** Probability of the label minus that of the runner-up, in [0, 1]; 1 if there is a single class. */
  readonly margin: number;
  /** False only if the budget ended before the strategy did. */
  readonly decided: boolean;
  /** Number of evaluations of the image. */
  readonly evaluations: number;
  /** Seconds since the image was put on the device. */
  readonly seconds: number;
  readonly seed: number;
  readonly model: string;
  /** The adapter that the model ran on. Results are byte-identical on the same one. */
  readonly device?: string;
  /** Set if the evaluations stored weights and activations as f16. */
  readonly precision?: 'f16';
  /** -log p(x) up to a constant, if energies are requested (see `energyOf`), and the number of levels it is based on. */
  readonly energy?: number;
  readonly energyLevels?: number;
  /** True if the image is unlike the training set (see `Model.familiar`); otherwise absent. */
  readonly unfamiliar?: true;
  /** The method by which the image was purified, if it was. */
  readonly purify?: string;
}

/** One line of the log of evaluations; `candidate` is the index of a candidate, `noise` that of a noise. */
export interface EvaluationRecord {
  readonly path: string;
  readonly candidate: number;
  readonly t?: number;
  readonly sigma?: number;
  readonly noise: number;
  /** Weight of the level in the weighted mean. */
  readonly weight: number;
  /** Distance before any weight. */
  readonly error: number;
}

/** The progress of a run. */
export interface Progress {
  /** Finished images, including failures. */
  readonly images: number;
  readonly failures: number;
  readonly evaluations: number;
  /** Seconds since the run began. */
  readonly seconds: number;
  readonly imagesPerSecond: number;
}

/** Returns the progress of a run with these counts, `seconds` after it began. */
export const progressAfter = (
  seconds: number,
  counts: Omit<Progress, 'seconds' | 'imagesPerSecond'>,
): Progress => ({ ...counts, seconds, imagesPerSecond: seconds > 0 ? counts.images / seconds : 0 });

/** Returns the fields of a result or a report that name the model and the device. */
export const madeBy = ({
  name,
  device,
  precision,
}: Pick<Model, 'name' | 'device' | 'precision'>): {
  readonly model: string;
  readonly device?: string;
  readonly precision?: 'f16';
} => ({
  model: name,
  ...(device === undefined ? {} : { device }),
  ...(precision === 'f16' && { precision }),
});

/** Whether an item or a result is a failure. */
export const isFailure = (value: object): value is ItemFailure => 'error' in value;
