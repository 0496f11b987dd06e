// How a process ends when something is wrong with the whole of it.

import {
  DeviceLostError,
  ModelError,
  NoDeviceError,
  OutOfMemoryError,
  ShapeError,
  UnsupportedError,
  UsageError,
} from '../../../errors.ts';

/** Exit statuses by the kind of error; what is not listed is a mistake of the program's own. */
const STATUS: readonly (readonly [new (message: string) => Error, number])[] = [
  [UsageError, 2],
  [ModelError, 3],
  [ShapeError, 3],
  [UnsupportedError, 3],
  [NoDeviceError, 4],
  [DeviceLostError, 4],
  [OutOfMemoryError, 4],
];

/** Exit status of a mistake of the program's own, as BSD's sysexits has it. */
export const INTERNAL = 70;

/** The exit status for an error that ended the program. */
export const statusOf = (error: unknown): number =>
  STATUS.find(([kind]) => error instanceof kind)?.[1] ?? INTERNAL;

/** One sentence; for a mistake of the program's own also where it happened. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return statusOf(error) === INTERNAL ? `${error.message}\n${error.stack}` : error.message;
}
