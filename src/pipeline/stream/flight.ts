// What flows between the operators that `classify` is made of.

import type { Model } from '../../graph/model.ts';
import type { Group, Round, Trial } from '../deciding/trial.ts';
import type { ItemFailure } from '../types.ts';
import type { LeasedImage } from './batcher.ts';
import type { Positioned } from './input-order.ts';

/** What strategies and verdicts need to know of a model. */
export type ModelFacts = Pick<
  Model,
  'name' | 'candidates' | 'levels' | 'kappa' | 'noisePairing' | 'temperature' | 'seed' | 'device' | 'familiar'
>;

/** An image in a slot of a classifier, with its trial so far. It holds the slot until its trial ends. */
export interface ImageInFlight extends Positioned {
  readonly path: string;
  readonly model: ModelFacts;
  readonly lease: LeasedImage;
  /** The seed of its noise, if it is not the model's own. */
  readonly seed?: number | bigint | undefined;
  readonly trial: Trial;
  /** What the last elimination asked for; if undefined, all that is left of the grid. */
  readonly look?: Round | undefined;
  /** What the last aggregation added to the trial. */
  readonly evaluated?: readonly Group[] | undefined;
  /** When it was put on the device, in milliseconds. */
  readonly started: number;
}

/** An image at one (level, noise) which its candidates share: number `index` of the `of` that a look fans out to. */
export interface SharedFan {
  readonly image: ImageInFlight;
  readonly fan: Group;
  readonly index: number;
  readonly of: number;
}

/** A shared fan with the error of each of its candidates, or with the fault of the image. */
export type Errors = SharedFan &
  ({ readonly errors: Float32Array } | { readonly failure: ItemFailure['error'] });

/** What every operator lets pass: images with nothing left to evaluate, and failures. */
export type Passing = ImageInFlight | ItemFailure;

/** Makes a failure of an image. */
export const failedImage = (
  { path, position }: Pick<ImageInFlight, 'path' | 'position'>,
  error: ItemFailure['error'],
): ItemFailure => ({ path, error, ...(position === undefined ? {} : { position }) });

/** True for images in flight. */
export const isImage = (value: object): value is ImageInFlight => 'trial' in value;

/** True for shared fans, also those with errors. */
export const isFan = (value: object): value is SharedFan => 'fan' in value;
