import { type OperatorFunction, pipe } from 'rxjs';
import type { AbortSignalLike } from '../../host-types.ts';
import { bind } from '../deciding/bind.ts';
import type { OpenModel } from '../stream/batcher.ts';
import { inInputOrder } from '../stream/input-order.ts';
import { pulled, pullOf, streamOperator } from '../stream/observable.ts';
import { type ClassifierInfo, owning, register } from '../stream/sharing.ts';
import type { Classified, ImageItem, ItemFailure } from '../types.ts';
import { aggregate } from './aggregate.ts';
import { type ClassifyOptions, observers, type StreamOptions } from './classify-options.ts';
import { eliminate } from './eliminate.ts';
import { encodeAs } from './encode.ts';
import { errors } from './errors.ts';
import { fanOut } from './fan-out.ts';
import { tapPulled } from './pulled.ts';
import { untilDecided } from './until-decided.ts';
import { verdict } from './verdict.ts';

/**
 * Classifies images: `encode`, then rounds of `eliminate`, `fanOut`, `errors` and `aggregate` until the strategy has
 * finished, then `verdict`, for as many images at a time as the classifier has slots.
 *
 * Results are emitted as soon as they are decided. Failures of single items are values; an error of the device ends the
 * stream, once. Unsubscribing and `options.signal` stop the work in flight. A model that the stream has opened is closed at
 * its end; an opened classifier stays open. A pulled source is never read further ahead than the images in flight; of a
 * plain observable up to `queue` items wait.
 *
 * @param classifier an open classifier, or a function that opens a model which this stream then owns, again after a lost
 *   device. Streams whose function returns the same model share it, and the last one closes it.
 * @param options strategy, budget, seed, concurrency and more; see `ClassifyOptions`.
 * @return an operator from images to results. It throws UsageError if strategy, budget and model do not fit together.
 *
 * @example
 * import { findImages, loadImages, openClassifier, sequential } from 'diffclass-stream';
 * import { classify, pulled } from 'diffclass-stream/operators';
 *
 * const classifier = await openClassifier('fashion-mnist-multi-head');
 * pulled(loadImages(findImages(['photos']), classifier.inputShape))
 *   .pipe(classify(classifier, { strategy: sequential({ confidence: 0.999 }) }))
 *   .subscribe((result) => console.log(result.path, 'label' in result ? result.label : result.error.message));
 */
export const classify = (
  classifier: ClassifierInfo | OpenModel,
  options: ClassifyOptions & { readonly queue?: number } = {},
): OperatorFunction<ImageItem | ItemFailure, Classified | ItemFailure> => classifyAs(classifier, options);

/** Classifies as `classify` does, for a given user of the classifier. */
export const classifyAs = (
  classifier: ClassifierInfo | OpenModel,
  options: StreamOptions & { readonly queue?: number },
): OperatorFunction<ImageItem | ItemFailure, Classified | ItemFailure> =>
  streamOperator((images: AsyncIterable<ImageItem | ItemFailure>, unsubscribed) => {
    const signal = options.signal ? AbortSignal.any([options.signal, unsubscribed]) : unsubscribed;
    const results =
      typeof classifier === 'function'
        ? owning(classifier, signal, (batcher) => {
            register(batcher.model, batcher);
            return composed(batcher.model, images, options, signal);
          })
        : composed(classifier, images, options, signal);
    return orReason(results, options.signal);
  }, options.queue);

/** Yields the results. If the signal has aborted by the end, throws its reason. */
async function* orReason<T>(
  results: AsyncIterable<T>,
  signal: AbortSignalLike | undefined,
): AsyncGenerator<T> {
  yield* results;
  signal?.throwIfAborted();
}

/** With `order: 'input'`, the most images in flight or held back, as a multiple of the most images in flight. */
const WINDOW = 4;

/** Composes the operators of a classification. */
function composed(
  classifier: ClassifierInfo,
  images: AsyncIterable<ImageItem | ItemFailure>,
  options: StreamOptions,
  signal: AbortSignalLike,
): AsyncIterable<Classified | ItemFailure> {
  const { strategy, budget, concurrency = classifier.slots, order = 'completion' } = options;
  bind(classifier, { strategy, budget });
  const limit = Math.max(1, Math.min(concurrency, classifier.slots));
  const observe = observers(options);
  const round = pipe(
    eliminate(strategy, { budget }),
    fanOut(),
    errors(classifier),
    aggregate(),
    tapPulled(observe.round),
  );
  const decide = pipe(encodeAs(classifier, options, options.user), untilDecided(round, limit));
  const decided = (source: AsyncIterable<ImageItem | ItemFailure>) =>
    pullOf(pulled(source).pipe(decide))(signal);
  const ordered = order === 'input' ? inInputOrder(images, decided, WINDOW * limit) : decided(images);
  return pullOf(pulled(ordered).pipe(verdict(options), tapPulled(observe.result)))(signal);
}
