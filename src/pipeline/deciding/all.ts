// `all`: evaluates every candidate on every level. Other strategies are measured against this exhaustive classifier.

import { ascending } from './levels.ts';
import type { StrategyEntry } from './strategy-entry.ts';
import type { Strategy } from './trial.ts';

/** The most evaluations of a round, which keeps a large grid of many candidates from being one enormous round. */
const ROUND_EVALUATIONS = 4096;

/**
 * Returns a strategy that never drops a candidate. It visits levels in ascending order; with a file of
 * noises, noise k therefore belongs to the k-th level of the ascending grid.
 *
 * @example
 * import { all, openClassifier } from 'diffclass-stream';
 *
 * const classifier = await openClassifier('fashion-mnist');
 * const result = await classifier.classify('photo.png', { strategy: all() });
 */
export const all =
  (): Strategy =>
  ({ candidates, levels }) => {
    const order = ascending(levels);
    const round = Math.max(1, Math.floor(ROUND_EVALUATIONS / candidates.length));
    return ({ survivors, visited }) => ({
      survivors,
      levels: order.slice(visited.length, visited.length + round),
    });
  };

export const allEntry: StrategyEntry = {
  name: 'all',
  summary: 'never',
  options: {},
  choose: () => ({ strategy: all(), record: 'all' }),
};
