// Binds a strategy to a model.

import { UsageError } from '../../errors.ts';
import { sequential } from './sequential.ts';
import type { ModelInfo, Strategy } from './trial.ts';

/** A strategy bound to a model: returns the next round of a trial. */
export type Decide = ReturnType<Strategy>;

/**
 * Binds a strategy to a model, and checks the budget.
 *
 * @throws UsageError if the strategy does not fit the model, or the budget does not reach every candidate.
 */
export function bind(
  info: ModelInfo,
  {
    strategy = sequential(),
    budget,
  }: { readonly strategy?: Strategy | undefined; readonly budget?: number | undefined },
): Decide {
  const { candidates, levels } = info;
  if (candidates.length === 0 || levels.length === 0)
    throw new UsageError(
      `expected candidates and levels to decide by, got ${candidates.length} candidates and ${levels.length} levels`,
    );
  if (budget !== undefined && !(budget >= candidates.length))
    throw new UsageError(
      `expected a budget of at least one evaluation for each of ${candidates.length} candidates, got ${budget}`,
    );
  return strategy(info);
}
