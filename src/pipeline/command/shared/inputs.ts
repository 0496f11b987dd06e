// The inputs of commands that take images: checked before a run, and counted for its progress.

import { UsageError } from '../../../errors.ts';
import type { AbortSignalLike } from '../../../host-types.ts';
import { findImages } from '../../node/sources.ts';
import { until } from '../../stream/iterables.ts';
import { isFailure } from '../../types.ts';

/**
 * Returns the inputs of a command line; with -0 (`nul`) they include standard input.
 *
 * @throws UsageError if there is nothing to read, or if standard input is to be read twice.
 */
export function inputsOf(operands: readonly string[], nul: boolean): readonly string[] {
  const inputs = nul && !operands.includes('-') ? [...operands, '-'] : operands;
  if (inputs.length === 0)
    throw new UsageError(
      'no INPUT: expected image files, folders, patterns, or - for paths on standard input (see --help)',
    );
  if (inputs.filter((input) => input === '-').length > 1)
    throw new UsageError('-: standard input can be read only once');
  return inputs;
}

/** Counts what is found, except what cannot be read. */
export async function countFound(found: AsyncIterable<object>): Promise<number> {
  let count = 0;
  for await (const item of found) if (!isFailure(item)) count++;
  return count;
}

/**
 * Counts the images of the inputs in a walk of its own, for the time that is left. Returns undefined if it was stopped,
 * or if paths come by standard input, which can be read only once.
 */
export async function countInputs(
  inputs: readonly string[],
  stop: AbortSignalLike,
): Promise<number | undefined> {
  if (inputs.includes('-')) return undefined;
  let total = 0;
  for await (const _ of until(findImages(inputs, { namesOnly: true }), stop)) total++;
  return stop.aborted ? undefined : total;
}
