// The classifier: one model on a device, for any number of calls and streams at once.

import { ItemError, UsageError } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import type { AsyncDisposableLike } from '../../host-types.ts';
import type { ImageInput } from '../images/image-input.ts';
import type { ClassifyOptions } from '../operators/classify-options.ts';
import type { Batcher } from '../stream/batcher.ts';
import {
  batcherOfClassifier,
  CLASSIFIER_INFO,
  type ClassifierInfo,
  register,
  type SharedBatcher,
} from '../stream/sharing.ts';
import { type Classified, type ImageItem, type ItemFailure, isFailure } from '../types.ts';
import { classifyImages, classifyStream } from './classify-images.ts';

/** An opened model. All users share its slots and batches fairly; results never depend on other users. */
export interface Classifier extends ClassifierInfo, AsyncDisposableLike {
  /**
   * Classifies one image: the path of a file, or anything that `imageFrom` takes.
   *
   * @throws ItemError (`code`, `message`) for an image that cannot be read or classified, UsageError if strategy, budget
   *   and model do not fit together or the classifier is closed, the reason of `options.signal`, DeviceLostError if the device is
   *   lost twice in a row.
   */
  classify(image: ImageInput, options?: ClassifyOptions): Promise<Classified>;
  /**
   * Classifies a stream of images with bounded memory (see `classifyImages`). Results and failures of single images are
   * values, in completion order or, with `order: 'input'`, in the order of the source.
   */
  classifyAll(
    source: AsyncIterable<ImageItem | ItemFailure>,
    options?: ClassifyOptions,
  ): AsyncIterableIterator<Classified | ItemFailure, undefined>;
  /** Returns another handle of the same opened model. The model closes with its last handle. */
  share(): Classifier;
  /**
   * Refuses new images. With the last handle, waits for the images in flight and frees the device; streams that are still
   * open then end with an error. A second call only waits for the first.
   */
  close(): Promise<void>;
}

/** Reads an image and fits it to a model's input shape. */
type ReadImage = (
  image: ImageInput,
  shape: Model['inputShape'],
  options: Pick<ClassifyOptions, 'signal'> & Pick<Model, 'crop'>,
) => Promise<ImageItem>;

/** Makes a classifier of a batcher, which it then owns. Single images are read by `readImage`. */
export function classifierOf({ batcher, drain }: SharedBatcher, readImage: ReadImage): Classifier {
  // All single calls together are one user of the batcher.
  const single = batcher.user();
  let handles = 0;

  const handle = (): Classifier => {
    handles++;
    let closing: Promise<void> | undefined;
    const classifier: Classifier = Object.assign(infoOf(batcher), {
      async classify(image: ImageInput, options: ClassifyOptions = {}) {
        options.signal?.throwIfAborted();
        batcherOfClassifier(classifier);
        const { inputShape, crop } = batcher.model;
        const item = await readImage(image, inputShape, { crop, signal: options.signal });
        for await (const result of classifyStream(once(item), classifier, { ...options, user: single })) {
          if (!isFailure(result)) return result;
          throw new ItemError(result.error.code, result.error.message);
        }
        throw new UsageError('the classifier was closed before the image was classified');
      },
      classifyAll(source: AsyncIterable<ImageItem | ItemFailure>, options: ClassifyOptions = {}) {
        batcherOfClassifier(classifier);
        return classifyImages(source, classifier, options);
      },
      share() {
        batcherOfClassifier(classifier);
        return handle();
      },
      close() {
        closing ??= (async () => {
          register(classifier, undefined);
          if (--handles === 0) await drain();
        })();
        return closing;
      },
      [Symbol.asyncDispose]: () => classifier.close(),
    });
    register(classifier, batcher);
    return classifier;
  };
  return handle();
}

/** Makes properties that read from the current model, which is another one after a lost device. */
function infoOf(batcher: Batcher): ClassifierInfo {
  const info = {};
  for (const key of CLASSIFIER_INFO)
    Object.defineProperty(info, key, { enumerable: true, get: () => batcher.model[key] });
  return info as ClassifierInfo;
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}
