import type { OperatorFunction } from 'rxjs';
import { faultOf } from '../../errors.ts';
import { startTrial } from '../deciding/trial.ts';
import { checkPixels } from '../images/raw-pixels.ts';
import type { LeasedImage } from '../stream/batcher.ts';
import { failedImage, type ImageInFlight } from '../stream/flight.ts';
import type { Positioned } from '../stream/input-order.ts';
import type { User } from '../stream/jobs.ts';
import { streamOperator } from '../stream/observable.ts';
import { batcherOfClassifier, type ClassifierInfo } from '../stream/sharing.ts';
import { type ImageItem, type ItemFailure, isFailure } from '../types.ts';

/** Options of `encode`. */
export interface EncodeOptions {
  /** The seed of the noise that is mixed with these images. Default: the classifier's own. */
  readonly seed?: number | bigint | undefined;
  /** A clock in milliseconds. Default: `Date.now`. */
  readonly now?: (() => number) | undefined;
}

/**
 * Puts images on the device, through the encoder of a latent model, and starts their trials.
 *
 * Waits for a free slot before every image, so at most `classifier.slots` images are in flight, including those of other
 * users of the classifier. `verdict` and `untilDecided` free the slot of an image. When the subscription ends, the slots
 * of images still in flight are freed. An image of the wrong shape or with values outside [-1, 1] becomes a failure;
 * failures pass. Buffers nothing (but see `streamOperator` for plain observables).
 *
 * @param classifier an open classifier.
 * @param options the seed of the noise.
 * @return an operator from images with `pixels` [c, h, w] in [-1, 1] to images in flight.
 *
 * @example
 * import { findImages, loadImages, openClassifier } from 'diffclass-stream';
 * import { aggregate, encode, errors, fanOut, pulled, verdict } from 'diffclass-stream/operators';
 *
 * const classifier = await openClassifier('fashion-mnist-multi-head');
 * const images$ = pulled(loadImages(findImages(['photos']), classifier.inputShape));
 * images$
 *   .pipe(encode(classifier), fanOut(), errors(classifier), aggregate(), verdict())
 *   .subscribe((result) => console.log(result));
 */
export const encode = (
  classifier: ClassifierInfo,
  options: EncodeOptions = {},
): OperatorFunction<ImageItem | ItemFailure, ImageInFlight | ItemFailure> => encodeAs(classifier, options);

/** Encodes as `encode` does, for a given user of the classifier. Default: every subscription is a separate user. */
export const encodeAs = (
  classifier: ClassifierInfo,
  { seed, now = Date.now }: EncodeOptions,
  user?: User,
): OperatorFunction<ImageItem | ItemFailure, ImageInFlight | ItemFailure> =>
  streamOperator(async function* (items: AsyncIterable<ImageItem | ItemFailure>, signal) {
    const batcher = batcherOfClassifier(classifier);
    const self = user ?? batcher.user();
    const leases = new Set<LeasedImage>();
    const release = (reason: unknown) => {
      for (const lease of leases) lease.release(reason);
    };
    signal.addEventListener('abort', () => release(signal.reason));
    try {
      for await (const item of items) yield isFailure(item) ? item : await admit(item);
    } catch (error) {
      release(error);
      throw error;
    }

    async function admit(item: ImageItem & Positioned): Promise<ImageInFlight | ItemFailure> {
      const { path, pixels, geometry, position } = item;
      try {
        checkPixels(pixels, classifier.inputShape);
        const options = { signal, geometry, seed: seed === undefined ? undefined : BigInt(seed) };
        const lease = await batcher.lease(self, pixels, options);
        const tracked: LeasedImage = {
          ...lease,
          release(reason) {
            leases.delete(tracked);
            lease.release(reason);
          },
        };
        leases.add(tracked);
        const { model } = batcher;
        return { path, position, model, lease: tracked, seed, trial: startTrial(model), started: now() };
      } catch (error) {
        return failedImage(item, faultOf(error));
      }
    }
  });
