import type { OperatorFunction } from 'rxjs';
import { faultOf } from '../../errors.ts';
import { type Errors, isFan, type Passing, type SharedFan } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';
import { concurrently } from '../stream/pull.ts';
import { batcherOfClassifier, type ClassifierInfo } from '../stream/sharing.ts';

/**
 * Evaluates: every shared fan comes back with the error of each of its candidates. Evaluations of all images in flight,
 * also those of other streams, share batches, so values may overtake each other.
 *
 * At most `ahead` fans are in flight; the default keeps batches full when a single candidate is left. An error that is
 * NaN or infinite becomes the failure of its image; errors of the device end the stream.
 *
 * @param classifier the classifier that the images were put on by `encode`.
 * @param ahead fans in flight; three batches by default.
 * @return an operator from shared fans to the same with errors.
 */
export const errors = (
  classifier: ClassifierInfo,
  ahead = 3 * classifier.batchSize,
): OperatorFunction<SharedFan | Passing, Errors | Passing> =>
  streamOperator((fans: AsyncIterable<SharedFan | Passing>, signal) => {
    batcherOfClassifier(classifier);
    return concurrently(fans, async (fan) => (isFan(fan) ? evaluate(fan) : fan), ahead, signal);
  });

async function evaluate(shared: SharedFan): Promise<Errors> {
  const { candidates, level, noise } = shared.fan;
  const count = candidates.length;
  try {
    const errors = await shared.image.lease.errors({
      candidate: candidates,
      level: new Uint32Array(count).fill(level),
      noise: new Uint32Array(count).fill(noise),
    });
    return { ...shared, errors };
  } catch (error) {
    return { ...shared, failure: faultOf(error) };
  }
}
