// A strategy meets a model.

import { UsageError } from '../../errors.ts';
import { sequential } from './sequential.ts';
import type { ModelInfo, Strategy } from './trial.ts';

/** A strategy bound to a model, and asked with a trial. */
export type Decide = ReturnType<Strategy>;

/**
 * Binds a strategy and checks the budget.
 *
 * @throws UsageError if the strategy does not fit the model, or the budget does not reach every candidate.
 */
export function bind(
  facts: ModelInfo,
  {
    strategy = sequential(),
    budget,
  }: { readonly strategy?: Strategy | undefined; readonly budget?: number | undefined },
): Decide {
  const { candidates, levels } = facts;
  if (candidates.length === 0 || levels.length === 0)
    throw new UsageError(`nothing to decide: ${candidates.length} candidates, ${levels.length} levels`);
  if (budget !== undefined && !(budget >= candidates.length))
    throw new UsageError(
      `a budget of ${budget} does not reach each of the ${candidates.length} candidates once`,
    );
  return strategy(facts);
}
