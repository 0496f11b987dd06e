// Classifies a stream of images, as an async iterable.

import type { AbortSignalLike } from '../../host-types.ts';
import { classifyAs } from '../operators/classify.ts';
import type { ClassifyOptions, StreamOptions } from '../operators/classify-options.ts';
import type { OpenModel } from '../stream/batcher.ts';
import { pulled, pullOf } from '../stream/observable.ts';
import { stoppable } from '../stream/pull.ts';
import type { ClassifierInfo } from '../stream/sharing.ts';
import type { Classified, ImageItem, ItemFailure } from '../types.ts';

/**
 * Classifies a stream of images with bounded memory: an item is pulled only if fewer than `concurrency` images are in
 * flight and all results so far were taken. So the source is never more than `concurrency` items (and the one being
 * pulled) ahead of the consumer.
 *
 * Results are yielded as soon as they are decided, in completion order or, with `order: 'input'`, in the order of the
 * source. Failures pass through; an image that cannot be classified becomes one. The evaluations of an image, and so its
 * result, depend on its own errors only, not on the batch size, the concurrency or other images.
 *
 * @param source images with `pixels` [c, h, w] in [-1, 1], and failures.
 * @param classifier an open classifier, which stays open; or a function that opens a model which this stream then owns. It
 *   is called when the first result is pulled. The model is closed at the end, on an error, on `signal` and on
 *   `return()`, even while a result is awaited.
 * @param options strategy, budget, seed, concurrency and more; see `ClassifyOptions`.
 * @throws UsageError if strategy, budget and model do not fit together (from the first `next()`).
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

/** Classifies as `classifyImages` does, for a given user of the classifier. */
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
