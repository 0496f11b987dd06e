// What flows between the operators that `classify` is made of.

import type { Fan, Look, Trial } from '../deciding/trial.ts';
import type { ItemFailure } from '../types.ts';
import type { Session, Ticket } from './session.ts';

/** An image in a slot of a session, with its trial so far. Until `verdict` takes it, it holds the slot. */
export interface ImageInFlight {
  readonly path: string;
  readonly session: Session;
  readonly ticket: Ticket;
  readonly trial: Trial;
  /** What the last elimination asked for; without one, all that is left of the grid. */
  readonly look?: Look;
  /** When it was put on the device, milliseconds. */
  readonly started: number;
}

/** An image at one (level, noise) which its candidates share: one of the `of` that a look fans out to. */
export interface SharedFan {
  readonly image: ImageInFlight;
  readonly fan: Fan;
  readonly of: number;
}

/** A shared fan with the error of each of its candidates, or with the fault of the image. */
export type Errors = SharedFan &
  ({ readonly errors: Float32Array } | { readonly failure: ItemFailure['error'] });

/** What every operator lets pass: images with nothing left to evaluate, and failures. */
export type Passing = ImageInFlight | ItemFailure;

/** True for images in flight among what flows. */
export const isImage = (value: object): value is ImageInFlight => 'trial' in value;

/** True for shared fans among what flows, also those with errors. */
export const isFan = (value: object): value is SharedFan => 'fan' in value;
