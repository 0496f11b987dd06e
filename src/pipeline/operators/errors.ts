import type { OperatorFunction } from 'rxjs';
import { faultOf } from '../errors.ts';
import { type Errors, isFan, type Passing, type SharedFan } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';
import { concurrently } from '../stream/pull.ts';
import type { Session } from '../stream/session.ts';

/**
 * Evaluates: every shared fan comes back with the error of each of its candidates. Evaluations of all images
 * in flight share batches, so values may overtake each other.
 *
 * At most `ahead` fans are in flight; the default keeps batches full when a single candidate is left.
 * Unsubscribing stops waiting for them at once. An error that is not finite becomes the fault of its image;
 * errors of the device end the stream.
 *
 * @param session the model's session.
 * @param ahead fans in flight; three batches by default.
 * @return an operator from shared fans to the same with errors.
 */
export const errors = (
  session: Session,
  ahead = 3 * session.model.batchSize,
): OperatorFunction<SharedFan | Passing, Errors | Passing> =>
  streamOperator((fans: AsyncIterable<SharedFan | Passing>, signal) =>
    concurrently(fans, async (fan) => (isFan(fan) ? evaluate(session, fan) : fan), ahead, signal),
  );

async function evaluate(session: Session, shared: SharedFan): Promise<Errors> {
  try {
    return { ...shared, errors: await session.errors(shared.image.ticket, shared.fan) };
  } catch (error) {
    return { ...shared, failure: faultOf(error) };
  }
}
