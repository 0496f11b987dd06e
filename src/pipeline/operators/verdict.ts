import type { OperatorFunction } from 'rxjs';
import { resultOf } from '../deciding/verdict.ts';
import type { ClassifyOptions } from '../stream/classify.ts';
import { isImage, type Passing } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';
import type { Classified, ItemFailure } from '../types.ts';

/**
 * Ends the trial of an image: its slot is free again, and its result comes out. Where the strategy would have
 * gone on, or was never asked, the result is the best guess so far and, unless the whole grid was evaluated,
 * `decided` is false. Failures pass. Buffers nothing.
 *
 * @param options `topK`, `seed` and `temperature`, as for `classify`.
 * @return an operator from images in flight to results.
 */
export const verdict = (
  options: Pick<ClassifyOptions, 'topK' | 'seed' | 'temperature' | 'now'> = {},
): OperatorFunction<Passing, Classified | ItemFailure> =>
  streamOperator(async function* (passing: AsyncIterable<Passing>) {
    for await (const image of passing) {
      if (isImage(image)) image.session.release(image.ticket);
      yield isImage(image) ? resultOf(image, image.session.model, options) : image;
    }
  });
