// What flows through the pipeline: images in, failures and results out, and the log of single evaluations.

import type { Model } from '../graph/model.ts';

/** An image as a model takes it: `pixels` [c, h, w] in [-1, 1], the `path` it came from. */
export interface ImageItem {
  readonly path: string;
  readonly pixels: Float32Array;
}

/** An item that could not be classified. It passes through every stage as a value; the stream goes on. */
export interface ItemFailure {
  readonly path: string;
  readonly error: { readonly code: string; readonly message: string };
}

/** One class of a result, represented by its best candidate. */
export interface RankedClass {
  readonly label: string;
  readonly classidx: number;
  /** In [0, 1]; the probabilities of all classes, also those left out of `top`, add to 1. */
  readonly probability: number;
  /** Weighted mean error, comparable between the entries (see `verdict.ts`). */
  readonly error: number;
  /** Standard error of the gap between this error and the best one; 0 for the best itself. */
  readonly stderr: number;
  /** Evaluations spent on the class, over all its candidates. */
  readonly evaluations: number;
  /** The best candidate's prompt, for text models. */
  readonly prompt?: string;
  /** -log p(x | class) up to a constant, where energies are asked for (see `energyOf`). */
  readonly energy?: number;
}

/** The result of one image, field by field what a line of the output holds. */
export interface Classified {
  readonly path: string;
  readonly label: string;
  readonly classidx: number;
  readonly probability: number;
  readonly top: readonly RankedClass[];
  /** Probability of the label minus that of the runner-up, in [0, 1]; 1 where there is a single class. */
  readonly margin: number;
  /** False only where the budget ended before the strategy did. */
  readonly decided: boolean;
  /** Evaluations spent on the image. */
  readonly evaluations: number;
  /** Seconds of wall clock from the moment the image was put on the device. */
  readonly seconds: number;
  readonly seed: number;
  readonly model: string;
  /** The adapter that the model ran on; results are the same byte for byte on the same one. */
  readonly device?: string;
  /** -log p(x) up to a constant, where energies are asked for (see `energyOf`), and how many levels it rests on. */
  readonly energy?: number;
  readonly energyLevels?: number;
  /** True if the image lies outside what the model was trained on (see `Model.familiar`); absent otherwise. */
  readonly unfamiliar?: true;
  /** How the image was purified before, where it was. */
  readonly purify?: string;
}

/** One line of the log of evaluations: `candidate` is the index of a candidate, `noise` that of the noise. */
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

/** How far a run has come. */
export interface Progress {
  /** Images finished, failures included. */
  readonly images: number;
  readonly failures: number;
  readonly evaluations: number;
  /** Seconds since the run began. */
  readonly seconds: number;
  readonly imagesPerSecond: number;
}

/** How far a run has come by its counts, so many seconds after it began. */
export const progressAfter = (
  seconds: number,
  counts: Omit<Progress, 'seconds' | 'imagesPerSecond'>,
): Progress => ({ ...counts, seconds, imagesPerSecond: seconds > 0 ? counts.images / seconds : 0 });

/** The model and the device that made a result or a report, as they hold it. */
export const madeBy = ({
  name,
  device,
}: Pick<Model, 'name' | 'device'>): { readonly model: string; readonly device?: string } => ({
  model: name,
  ...(device === undefined ? {} : { device }),
});

/** True for the failures in a stream of items or results. */
export const isFailure = (value: object): value is ItemFailure => 'error' in value;
