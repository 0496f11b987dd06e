// Every candidate on every level: the exhaustive classifier that the others are measured against.

import { ascending } from './levels.ts';
import type { Strategy } from './trial.ts';

/** Evaluations asked for at a time, so that a large grid of many candidates is never one enormous round. */
const ROUND = 4096;

/**
 * Never drops a candidate. Levels are visited in ascending order; with a file of noises, noise k therefore belongs to the
 * k-th level of the ascending grid.
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
    const round = Math.max(1, Math.floor(ROUND / candidates.length));
    return ({ survivors, visited }) => ({
      survivors,
      levels: order.slice(visited.length, visited.length + round),
    });
  };
