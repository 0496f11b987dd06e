// The inputs of commands that take images: checked before a run, and counted for its progress.

import { UsageError } from '../../../errors.ts';
import type { AbortSignalLike } from '../../../host-types.ts';
import { findImages } from '../../node/sources.ts';
import { until } from '../../stream/iterables.ts';

/** @throws UsageError where there is nothing to read, or standard input is to be read twice. */
export function checkInputs(inputs: readonly string[]): void {
  if (inputs.length === 0)
    throw new UsageError(
      'no INPUT: wanted image files, folders, patterns, or - for paths on standard input (--help says more)',
    );
  if (inputs.filter((input) => input === '-').length > 1)
    throw new UsageError('-: standard input can be read only once');
}

/** Counts the images of the inputs in a walk of its own, for the ETA; never what comes by standard input. */
export async function countInputs(
  inputs: readonly string[],
  stop: AbortSignalLike,
  tell: (total: number) => void,
): Promise<void> {
  if (inputs.includes('-')) return;
  let total = 0;
  for await (const _ of until(findImages(inputs, { namesOnly: true }), stop)) total++;
  if (!stop.aborted) tell(total);
}
