import type { OperatorFunction } from 'rxjs';
import { aggregate as withErrors } from '../deciding/trial.ts';
import { type Errors, failedImage, type ImageInFlight, isFan, type Passing } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';

/**
 * Gathers the errors of an image. After all groups of its last round have arrived, in any order, emits the image with their
 * errors in its trial. An image with a failed evaluation leaves its slot and becomes a failure. Other failures pass.
 *
 * Holds the groups of incomplete rounds, at most those of all images in flight.
 *
 * @return an operator from errors to images in flight.
 *
 * @example
 * import { findImages, loadImages, openClassifier } from 'diffclass-stream';
 * import { aggregate, encode, errors, fanOut, pulled, verdict } from 'diffclass-stream/operators';
 *
 * const classifier = await openClassifier('fashion-mnist-multi-head');
 * pulled(loadImages(findImages(['photos']), classifier.inputShape))
 *   .pipe(encode(classifier), fanOut(), errors(classifier), aggregate(), verdict())
 *   .subscribe((result) => console.log(result));
 */
export const aggregate = (): OperatorFunction<Errors | Passing, Passing> =>
  streamOperator(async function* (arriving: AsyncIterable<Errors | Passing>) {
    const rounds = new Map<ImageInFlight, Errors[]>();
    for await (const value of arriving) {
      if (!isFan(value)) {
        yield value;
        continue;
      }
      const round = rounds.get(value.image) ?? [];
      round.push(value);
      rounds.set(value.image, round);
      if (round.length < value.of) continue;
      rounds.delete(value.image);
      yield complete(value.image, round);
    }
  });

/** Adds the errors of a round to the trial of its image, in the order in which the groups were requested. */
function complete(image: ImageInFlight, round: readonly Errors[]): Passing {
  const failed = round.find((part) => 'failure' in part);
  if (failed && 'failure' in failed) {
    image.lease.release();
    return failedImage(image, failed.failure);
  }
  const parts = [...round].sort((a, b) => a.index - b.index);
  const groups = parts.map(({ fan }) => fan);
  const errors = parts.map((part) => ('errors' in part ? part.errors : new Float32Array()));
  return {
    ...image,
    look: undefined,
    evaluated: groups,
    trial: withErrors(image.trial, groups, errors),
  };
}
