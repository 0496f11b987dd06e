// The exit status and the message of an error that ends the program.

import {
  DeviceLostError,
  ModelError,
  NoDeviceError,
  OutOfMemoryError,
  ShapeError,
  UnsupportedError,
  UsageError,
} from '../../../errors.ts';

/** Exit statuses by the kind of error; an error of any other kind is a bug of the program. */
const STATUS: readonly (readonly [new (message: string) => Error, number])[] = [
  [UsageError, 2],
  [ModelError, 3],
  [ShapeError, 3],
  [UnsupportedError, 3],
  [NoDeviceError, 4],
  [DeviceLostError, 4],
  [OutOfMemoryError, 4],
];

/** The exit status of a bug of the program (EX_SOFTWARE of BSD's sysexits). */
export const INTERNAL = 70;

/** Returns the exit status for an error that ended the program. */
export const statusOf = (error: unknown): number =>
  STATUS.find(([kind]) => error instanceof kind)?.[1] ?? INTERNAL;

/** Describes an error in one sentence; for a bug of the program, with its stack. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return statusOf(error) === INTERNAL ? `${error.message}\n${error.stack}` : error.message;
}
