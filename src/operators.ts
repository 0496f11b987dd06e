// The exports of `diffclass-stream/operators`: RxJS operators from images to results, and functions to make custom ones.

export type { Decide } from './pipeline/deciding/bind.ts';
export type { Group as Fan, Round as Look } from './pipeline/deciding/trial.ts';
export { aggregate } from './pipeline/operators/aggregate.ts';
export { classify } from './pipeline/operators/classify.ts';
export { eliminate } from './pipeline/operators/eliminate.ts';
export { type EncodeOptions, encode } from './pipeline/operators/encode.ts';
export { errors } from './pipeline/operators/errors.ts';
export { fanOut } from './pipeline/operators/fan-out.ts';
export { filterPulled, mapPulled, tapPulled } from './pipeline/operators/pulled.ts';
export { purify } from './pipeline/operators/purify.ts';
export { untilDecided } from './pipeline/operators/until-decided.ts';
export { verdict } from './pipeline/operators/verdict.ts';
export type { LeasedImage } from './pipeline/stream/batcher.ts';
export {
  type Errors,
  type ImageInFlight,
  isFan,
  isImage,
  type ModelFacts,
  type Passing,
  type SharedFan,
} from './pipeline/stream/flight.ts';
export type { Positioned } from './pipeline/stream/input-order.ts';
export type { ErrorSums, Evaluations, OnRow } from './pipeline/stream/jobs.ts';
export { type Pull, pulled, streamOperator } from './pipeline/stream/observable.ts';
export { isFailure } from './pipeline/types.ts';
