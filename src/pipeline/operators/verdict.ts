import type { OperatorFunction } from 'rxjs';
import { type ResultOptions, resultOf } from '../deciding/verdict.ts';
import { isImage, type Passing } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';
import type { Classified, ItemFailure } from '../types.ts';

/**
 * Ends the trial of an image: frees its slot and emits its result. If the strategy had not finished, or there was none,
 * the result is the best guess so far; `decided` is then false unless the whole grid was evaluated. Failures pass. Buffers
 * nothing.
 *
 * @param options `topK`, `temperature` and `energy`, as for `classify`.
 * @return an operator from images in flight to results. For an example, see `aggregate`.
 */
export const verdict = (options: ResultOptions = {}): OperatorFunction<Passing, Classified | ItemFailure> =>
  streamOperator(async function* (passing: AsyncIterable<Passing>) {
    for await (const image of passing) {
      if (isImage(image)) image.lease.release();
      yield isImage(image) ? resultOf(image, image.model, options) : image;
    }
  });
