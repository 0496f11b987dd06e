// The values between the operators of which `classify` is composed. Their public fields keep older names: `look` is the
// last round of an image, `fan` a group of its candidates.

import type { Model } from '../../graph/model.ts';
import type { Group, Round, Trial } from '../deciding/trial.ts';
import type { ItemFailure } from '../types.ts';
import type { LeasedImage } from './batcher.ts';
import type { Positioned } from './input-order.ts';

/** The properties of a model that strategies and verdicts use. */
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
  /** What the last elimination requested. If undefined, the rest of the grid is evaluated. */
  readonly look?: Round | undefined;
  /** The evaluations that the last aggregation added to the trial. */
  readonly evaluated?: readonly Group[] | undefined;
  /** Time at which it was put on the device, in milliseconds. */
  readonly started: number;
}

/** A group of an image's candidates, evaluated at the same (level, noise): number `index` of the `of` groups of a round. */
export interface SharedFan {
  readonly image: ImageInFlight;
  readonly fan: Group;
  readonly index: number;
  readonly of: number;
}

/** A group with the error of each of its candidates, or with the failure of the image. */
export type Errors = SharedFan &
  ({ readonly errors: Float32Array } | { readonly failure: ItemFailure['error'] });

/** What passes through every operator: images with nothing left to evaluate, and failures. */
export type Passing = ImageInFlight | ItemFailure;

/** Returns the failure of an image. */
export const failedImage = (
  { path, position }: Pick<ImageInFlight, 'path' | 'position'>,
  error: ItemFailure['error'],
): ItemFailure => ({ path, error, ...(position === undefined ? {} : { position }) });

/** Whether a value is an image in flight. */
export const isImage = (value: object): value is ImageInFlight => 'trial' in value;

/** Whether a value is a group, with or without errors. */
export const isFan = (value: object): value is SharedFan => 'fan' in value;

/** Evaluates a group: returns the errors of its candidates, in their order. */
export function groupErrors(
  lease: Pick<LeasedImage, 'errors'>,
  { candidates, level, noise }: Group,
): Promise<Float32Array> {
  const count = candidates.length;
  return lease.errors({
    candidate: candidates,
    level: new Uint32Array(count).fill(level),
    noise: new Uint32Array(count).fill(noise),
  });
}
