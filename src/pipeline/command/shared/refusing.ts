// Turns errors of the system into errors of the command line.

import { UsageError } from '../../../errors.ts';
import { systemCode } from '../../images/failures.ts';

/** Returns a function that throws `UsageError` for an error of the system: `what` failed, and the system's code. */
export const refusing =
  (what: string) =>
  (error: unknown): never => {
    throw new UsageError(`${what} (${systemCode(error) ?? error})`);
  };
