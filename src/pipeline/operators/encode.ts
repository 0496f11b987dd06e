import type { OperatorFunction } from 'rxjs';
import { startTrial } from '../deciding/trial.ts';
import { faultOf } from '../errors.ts';
import type { ImageInFlight } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';
import type { Session } from '../stream/session.ts';
import { type ImageItem, type ItemFailure, isFailure } from '../types.ts';

/**
 * Puts images on the device, through the encoder of a latent model, and begins their trials.
 *
 * Waits for a free slot before every image, so at most `session.model.slots` are in flight; `verdict` frees
 * them. An image of the wrong shape becomes a failure; failures pass. Buffers nothing (but see
 * `streamOperator` for plain observables).
 *
 * @param session the model's session.
 * @return an operator from images to images in flight.
 *
 * @example
 * images$.pipe(encode(session), fanOut(), errors(session), aggregate(), verdict()).subscribe(console.log);
 */
export const encode = (
  session: Session,
): OperatorFunction<ImageItem | ItemFailure, ImageInFlight | ItemFailure> =>
  streamOperator(async function* (items: AsyncIterable<ImageItem | ItemFailure>) {
    for await (const item of items) yield isFailure(item) ? item : await admit(session, item);
  });

async function admit(session: Session, { path, pixels }: ImageItem): Promise<ImageInFlight | ItemFailure> {
  try {
    const ticket = await session.admit(pixels);
    return { path, session, ticket, trial: startTrial(session.model), started: Date.now() };
  } catch (error) {
    return { path, error: faultOf(error) };
  }
}
