import type { OperatorFunction } from 'rxjs';
import type { OpenModel } from '../stream/batcher.ts';
import { streamOperator } from '../stream/observable.ts';
import { type Purified, type PurifyOptions, purifyImages } from '../stream/purify-images.ts';
import type { ImageItem, ItemFailure } from '../types.ts';

/**
 * Removes adversarial perturbations from images, so that a classifier does not see them: by likelihood maximisation
 * (`lm-adam`, `lm-momentum`, `lm-residual`; Chen et al., ICML 2024) or by `diffpure` (Nie et al., ICML 2022).
 *
 * Images are emitted as they are ready; as many are in flight as fill the model's batches. Failures of single items are
 * values; an error of the device ends the stream, once. Unsubscribing and `options.signal` stop the work in flight and
 * close the model. A pulled source is never read further ahead than the images in flight; of a plain observable up to
 * `queue` items wait.
 *
 * @param openModel opens the unconditional model at the levels of the steps, again after a lost device.
 * @param options the method and its settings; see `PurifyOptions`.
 * @return an operator from images to purified images, which `classify` takes.
 *
 * @example
 * import { findImages, loadImages, openClassifier, openModel, purificationLevels } from 'diffclass-stream';
 * import { classify, pulled, purify } from 'diffclass-stream/operators';
 *
 * const purifying = { method: 'lm-momentum', eps: 8 / 255 } as const;
 * const levels = purificationLevels(purifying);
 * const openPurifier = (request = {}) =>
 *   openModel('cifar-10', { unconditional: true, distance: 'l2', levels, ...request });
 * const classifier = await openClassifier('cifar-10');
 * pulled(loadImages(findImages(['photos']), classifier.inputShape))
 *   .pipe(purify(openPurifier, purifying), classify(classifier))
 *   .subscribe((result) => console.log(result));
 */
export const purify = <Item extends ImageItem = ImageItem>(
  openModel: OpenModel,
  options: PurifyOptions & { readonly queue?: number },
): OperatorFunction<Item | ItemFailure, Purified<Item> | ItemFailure> =>
  streamOperator((images: AsyncIterable<Item | ItemFailure>, signal) => {
    const either = options.signal ? AbortSignal.any([options.signal, signal]) : signal;
    return purifyImages(images, openModel, { ...options, signal: either });
  }, options.queue);
