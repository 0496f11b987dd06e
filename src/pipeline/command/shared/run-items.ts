// Works through items, several at a time, with progress on standard error; failed items do not end the run.

import { UsageError } from '../../../errors.ts';
import { failureOf } from '../../images/failures.ts';
import { mapOrdered, until } from '../../stream/iterables.ts';
import { unlessAborted } from '../../stream/pull.ts';
import { type ItemFailure, isFailure, progressAfter } from '../../types.ts';
import type { Interruption } from './interruption.ts';
import { untilDropped } from './run-command.ts';
import type { Surroundings } from './subcommand.ts';

/** How items are worked through. */
export interface RunItemsOptions {
  readonly concurrency: number;
  readonly interruption: Interruption;
  readonly reporter: Surroundings['reporter'];
  /** How many items there are at most, if that is known. */
  readonly total?: number | undefined;
}

/**
 * Does `work` for each item. Returns the results and the failures in the order of the items; if the run is interrupted,
 * those that were finished by then.
 *
 * @throws UsageError if `work` does; it is not the fault of one item.
 */
export async function runItems<Item extends { readonly path: string }, Result>(
  items: AsyncIterable<Item | ItemFailure>,
  work: (item: Item) => Promise<Result>,
  { concurrency, interruption, reporter, total }: RunItemsOptions,
) {
  const results: Result[] = [];
  const failures: ItemFailure[] = [];
  const began = Date.now();
  const seconds = () => (Date.now() - began) / 1000;
  const finish = async (item: Item | ItemFailure) => {
    if (isFailure(item)) return { failure: item };
    try {
      return { result: await unlessAborted(work(item), interruption.drop) };
    } catch (error) {
      if (error instanceof UsageError || interruption.drop.aborted) throw error;
      return { failure: failureOf(item.path, error) };
    }
  };
  await untilDropped(interruption, async () => {
    for await (const finished of mapOrdered(until(items, interruption.stop), concurrency, finish)) {
      if (finished.failure) {
        failures.push(finished.failure);
        reporter.log('warn', `${finished.failure.path}: ${finished.failure.error.message}`);
      } else results.push(finished.result);
      const images = results.length + failures.length;
      const counts = { images, failures: failures.length, evaluations: 0 };
      reporter.progress(progressAfter(seconds(), counts), 0, total);
    }
  });
  return { results, failures, seconds: seconds() };
}
