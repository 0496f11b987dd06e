// Runs a command that works through many images: closes at its end what it opened, claims its files, lets signals interrupt
// it, and returns its exit status.

import { type Interruption, interruptible } from './interruption.ts';
import { type ClaimedFile, type ClaimOptions, claimFile } from './output-file.ts';
import type { Surroundings } from './subcommand.ts';

/** A run of a command. */
export interface Run {
  /** Registers a cleanup for the end of the run, however it ends; the last one registered is done first. */
  readonly atEnd: (cleanup: () => unknown) => void;
  /** Claims a file until the end of the run (see `claimFile`). Returns undefined for `--output -`, standard output. */
  readonly claim: (path: string, options: ClaimOptions) => Promise<ClaimedFile | undefined>;
  /** Listens for signals: the first SIGINT or SIGTERM logs `message` and lets the run finish what is in flight. */
  readonly listen: (message: string) => Interruption;
}

/** How a run ended. */
export interface RunOutcome {
  /** Items that failed. */
  readonly failures: number;
  /** True if the reader has closed standard output. Failures then do not change the exit status. */
  readonly readerGone?: boolean;
}

/** Returns the message at the first interruption. */
export const interruptedText = (finishing: string): string =>
  `interrupted; finishing ${finishing} (once more to stop now)`;

/**
 * Runs a command. Returns the exit status: 0 if all went well, 1 if some items failed, and 130 (143 by SIGTERM) if the
 * run was interrupted.
 *
 * @throws what `body` throws, else what a cleanup throws, after all cleanups.
 */
export async function runCommand(
  { signals, reporter }: Pick<Surroundings, 'signals' | 'reporter'>,
  body: (run: Run) => Promise<RunOutcome>,
): Promise<number> {
  const cleanups: (() => unknown)[] = [];
  let interruption: Interruption | undefined;
  const atEnd = (cleanup: () => unknown) => void cleanups.push(cleanup);
  const claim = async (path: string, options: ClaimOptions) => {
    if (path === '-' && options.option === '--output') return undefined;
    const claimed = await claimFile(path, options);
    atEnd(claimed.release);
    return claimed;
  };
  const listen = (message: string) => {
    interruption = interruptible(signals, () => reporter.log('warn', message));
    atEnd(interruption.release);
    return interruption;
  };
  const errors: unknown[] = [];
  let status = 0;
  try {
    const { failures, readerGone = false } = await body({ atEnd, claim, listen });
    status = interruption?.status || (failures > 0 && !readerGone ? 1 : 0);
  } catch (error) {
    errors.push(error);
  }
  for (const cleanup of cleanups.reverse())
    try {
      await cleanup();
    } catch (error) {
      errors.push(error);
    }
  if (errors.length > 0) throw errors[0];
  return status;
}

/** Does work. If the interruption drops what is in flight, the work ends early and without an error. */
export async function untilDropped({ drop }: Interruption, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!drop.aborted || error !== drop.reason) throw error;
  }
}
