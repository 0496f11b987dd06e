import type { OperatorFunction } from 'rxjs';
import type { OpenModel } from '../stream/batches.ts';
import { type ClassifyOptions, classifyImages } from '../stream/classify.ts';
import { streamOperator } from '../stream/observable.ts';
import type { Classified, ImageItem, ItemFailure } from '../types.ts';

/**
 * Classifies images: `encode`, then rounds of `eliminate`, `fanOut`, `errors` and `aggregate` until the strategy
 * has finished, then `verdict`, for as many images at a time as the model has slots.
 *
 * Results come as soon as they are decided. Failures of single items are values; an error of the device ends
 * the stream, once. Unsubscribing stops the work in flight and closes the model, as does `options.signal`.
 * A pulled source is never read further ahead than the images in flight; of a plain observable up to `queue`
 * items wait.
 *
 * @param openModel opens the model, again after a lost device.
 * @param options strategy, budget, concurrency and the rest; see `ClassifyOptions`.
 * @return an operator from images to results.
 *
 * @example
 * pulled(images).pipe(classify(openModel, { strategy: sequential({ confidence: 0.999 }) }))
 *   .subscribe((result) => console.log(result.path, 'label' in result ? result.label : result.error.message));
 */
export const classify = (
  openModel: OpenModel,
  options: ClassifyOptions & { readonly queue?: number } = {},
): OperatorFunction<ImageItem | ItemFailure, Classified | ItemFailure> =>
  streamOperator((images: AsyncIterable<ImageItem | ItemFailure>, signal) => {
    const either = options.signal ? AbortSignal.any([options.signal, signal]) : signal;
    return classifyImages(images, openModel, { ...options, signal: either });
  }, options.queue);
