// How many evaluations a strategy asks for per image.

import { bind } from '../../deciding/bind.ts';
import { aggregate, counted, eliminate, fanOut, type ModelInfo, startTrial } from '../../deciding/trial.ts';
import type { ClassifyOptions } from '../../operators/classify-options.ts';

/** Counts of evaluations of an image. */
export interface EvaluationCounts {
  /** If every rival is far behind from the start. */
  readonly least: number;
  /** If no rival ever falls behind. */
  readonly most: number;
  /** All candidates at all levels. */
  readonly exhaustive: number;
}

/** What a strategy asks for of an image. */
export interface Demand extends EvaluationCounts {
  /** The distinct (image, level, noise) of each count: what a network runs for whose candidates share all work. */
  readonly views: EvaluationCounts;
  /** Evaluations that an image asks for at once, in its first round. */
  readonly atOnce: number;
}

/**
 * Counts the least and the most evaluations that a strategy asks for, by playing it through: with the candidates of one
 * class ahead of all others by the same at every level, as levels count, so that no test could be more certain; and with
 * all candidates equal.
 *
 * @throws UsageError if the strategy does not fit the model, or the budget does not reach every candidate.
 */
export function evaluationsOf(
  facts: ModelInfo,
  options: Pick<ClassifyOptions, 'strategy' | 'budget'>,
): Demand {
  const first = facts.candidates[0]?.classidx;
  const lead = counted(facts.levels).map(({ weight, share }) => (weight > 0 ? share / weight : 1));
  const least = played(facts, options, (candidate, level) =>
    facts.candidates[candidate]!.classidx === first ? 0 : lead[level]!,
  );
  const most = played(facts, options, () => 0);
  const levels = facts.levels.length;
  return {
    least: least.evaluations,
    most: most.evaluations,
    exhaustive: facts.candidates.length * levels,
    views: { least: least.views, most: most.views, exhaustive: levels },
    atOnce: most.atOnce,
  };
}

function played(
  facts: ModelInfo,
  options: Pick<ClassifyOptions, 'strategy' | 'budget'>,
  errorOf: (candidate: number, level: number) => number,
): { readonly evaluations: number; readonly views: number; readonly atOnce: number } {
  const decide = bind(facts, options);
  let trial = startTrial(facts);
  let atOnce = 0;
  for (;;) {
    const [next, look] = eliminate(trial, decide(trial), options.budget);
    if (next.decided !== undefined)
      return { evaluations: next.evaluations, views: next.visited.length, atOnce };
    const fans = fanOut(next, look);
    trial = aggregate(
      next,
      fans,
      fans.map(({ candidates, level }) =>
        Float32Array.from(candidates, (candidate) => errorOf(candidate, level)),
      ),
    );
    atOnce ||= trial.evaluations;
  }
}
