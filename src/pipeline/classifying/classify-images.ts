// Images in, results out, as an async iterable.

import type { AbortSignalLike } from '../../host-types.ts';
import { classifyAs } from '../operators/classify.ts';
import type { ClassifyOptions, StreamOptions } from '../operators/classify-options.ts';
import type { OpenModel } from '../stream/batcher.ts';
import { pulled, pullOf } from '../stream/observable.ts';
import { stoppable } from '../stream/pull.ts';
import type { ClassifierInfo } from '../stream/sharing.ts';
import type { Classified, ImageItem, ItemFailure } from '../types.ts';

/**
 * Classifies a stream of images with bounded memory: an item is pulled when fewer than `concurrency` images are in
 * flight and every result so far has been taken, so the source is never more than `concurrency` items (and the one being
 * pulled) ahead of the consumer.
 *
 * Results come as soon as they are decided, each once, in completion order or, with `order: 'input'`, in the order of the
 * source. Failures among the items pass through, and an image that cannot be classified becomes one. What an image asks
 * for, and so its result, is a function of its own errors alone: not of the batch size, the concurrency or its
 * neighbours.
 *
 * A model that `classifier` opens is opened when the first result is asked for, and closed at the end, on an error, on
 * `signal` and on `return()`, even while a result is awaited. An opened classifier stays open.
 *
 * @param source images, and items that have failed already.
 * @param classifier an open classifier, or how to open a model that this stream owns.
 * @throws UsageError if strategy, budget and model do not fit (from the first `next()`).
 *
 * @example
 * import { classifyImages, findImages, loadImages, openClassifier } from 'diffclass-stream';
 *
 * const classifier = await openClassifier('fashion-mnist-multi-head');
 * const images = loadImages(findImages(['photos']), classifier.inputShape);
 * for await (const result of classifyImages(images, classifier, { topK: 1 }))
 *   console.log(result.path, 'label' in result ? result.label : result.error.message);
 */
export const classifyImages = (
  source: AsyncIterable<ImageItem | ItemFailure>,
  classifier: ClassifierInfo | OpenModel,
  options: ClassifyOptions = {},
): AsyncIterableIterator<Classified | ItemFailure, undefined> => classifyStream(source, classifier, options);

/** `classifyImages` for a given user of the classifier. */
export const classifyStream = (
  source: AsyncIterable<ImageItem | ItemFailure>,
  classifier: ClassifierInfo | OpenModel,
  options: StreamOptions,
): AsyncIterableIterator<Classified | ItemFailure, undefined> =>
  stoppable((signal) => run(source, classifier, options, signal), options.signal);

async function* run(
  source: AsyncIterable<ImageItem | ItemFailure>,
  classifier: ClassifierInfo | OpenModel,
  options: StreamOptions,
  outer: AbortSignalLike,
): AsyncGenerator<Classified | ItemFailure, undefined> {
  outer.throwIfAborted();
  const ended = new AbortController();
  const signal = AbortSignal.any([outer, ended.signal]);
  try {
    yield* pullOf(pulled(source).pipe(classifyAs(classifier, { ...options, signal: undefined })))(signal);
    outer.throwIfAborted();
  } finally {
    ended.abort();
  }
}
