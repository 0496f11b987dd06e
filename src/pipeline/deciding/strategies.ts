// The strategies by name. A new one is a file of its own, with its function and its entry, and a name in this list.

import { checkOwners, entryOf, type OptionValues } from '../option.ts';
import { allEntry } from './all.ts';
import { sequentialEntry } from './sequential.ts';
import { stagedEntry } from './staged.ts';
import type { ChosenStrategy, StrategyEntry } from './strategy-entry.ts';

export const STRATEGIES: readonly StrategyEntry[] = [sequentialEntry, stagedEntry, allEntry];

/**
 * Makes the strategy of a name with the values of its options.
 *
 * @throws UsageError if a value belongs to another strategy, or the values do not fit together.
 */
export function chooseStrategy(
  name: string,
  values: OptionValues,
  strategies: readonly StrategyEntry[] = STRATEGIES,
): ChosenStrategy {
  const entry = entryOf(strategies, name);
  checkOwners(strategies, [entry], values, '--strategy ');
  return entry.choose(values);
}
