import type { OperatorFunction } from 'rxjs';
import { faultOf } from '../../errors.ts';
import { type Errors, groupErrors, isFan, type Passing, type SharedFan } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';
import { concurrently } from '../stream/pull.ts';
import { batcherOfClassifier, type ClassifierInfo } from '../stream/sharing.ts';

/**
 * Evaluates: emits every group with the error of each of its candidates. Evaluations of all images in flight,
 * including those of other streams, share batches, so values may overtake each other.
 *
 * If an error is NaN or infinity, its image becomes a failure; errors of the device end the stream.
 *
 * @param classifier the classifier that was passed to `encode`.
 * @param ahead the largest number of groups in flight. Default: three batches, which keeps batches full even if every group
 *   has a single candidate.
 * @return an operator from groups to the same with errors. For an example, see `aggregate`.
 */
export const errors = (
  classifier: ClassifierInfo,
  ahead = 3 * classifier.batchSize,
): OperatorFunction<SharedFan | Passing, Errors | Passing> =>
  streamOperator((groups: AsyncIterable<SharedFan | Passing>, signal) => {
    batcherOfClassifier(classifier);
    return concurrently(groups, async (group) => (isFan(group) ? evaluate(group) : group), ahead, signal);
  });

async function evaluate(shared: SharedFan): Promise<Errors> {
  try {
    return { ...shared, errors: await groupErrors(shared.image.lease, shared.fan) };
  } catch (error) {
    return { ...shared, failure: faultOf(error) };
  }
}
