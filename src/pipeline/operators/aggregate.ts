import type { OperatorFunction } from 'rxjs';
import { aggregate as withErrors } from '../deciding/trial.ts';
import { type Errors, failedImage, type ImageInFlight, isFan, type Passing } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';

/**
 * Gathers the errors of an image: once all fans of its last round are there, in whatever order, the image comes out with
 * them in its trial. An image with a fault leaves its slot and becomes a failure.
 *
 * Holds the fans of images whose round is not complete, at most all of those in flight.
 *
 * @return an operator from errors to images in flight.
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

function complete(image: ImageInFlight, round: readonly Errors[]): Passing {
  const failed = round.find((part) => 'failure' in part);
  if (failed && 'failure' in failed) {
    image.lease.release();
    return failedImage(image, failed.failure);
  }
  const parts = [...round].sort((a, b) => a.index - b.index);
  const fans = parts.map(({ fan }) => fan);
  const errors = parts.map((part) => ('errors' in part ? part.errors : new Float32Array()));
  return {
    ...image,
    look: undefined,
    evaluated: fans,
    trial: withErrors(image.trial, fans, errors),
  };
}
