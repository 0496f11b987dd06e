// Counts the evaluations that a strategy asks for per image.

import { bind } from '../../deciding/bind.ts';
import { playTrial, roundsOf } from '../../deciding/rounds.ts';
import { counted, type ModelInfo } from '../../deciding/trial.ts';
import type { ClassifyOptions } from '../../operators/classify-options.ts';

/** Counts of evaluations per image. */
export interface EvaluationCounts {
  /** If every rival is far behind from the start. */
  readonly least: number;
  /** If no rival ever falls behind. */
  readonly most: number;
  /** All candidates at all levels. */
  readonly exhaustive: number;
}

/** The evaluations that a strategy asks for per image. */
export interface Demand extends EvaluationCounts {
  /** The distinct (image, level, noise) of each count: the runs of a network whose candidates share all work. */
  readonly views: EvaluationCounts;
  /** Evaluations that an image asks for at once, in its first round. */
  readonly atOnce: number;
}

/**
 * Counts the least and the most evaluations that a strategy asks for, by simulating it twice. For the least, the candidates
 * of one class lead all others by the same weighted margin at every level, which makes every test as certain as it can be.
 * For the most, all candidates are equal.
 *
 * @throws UsageError if the strategy does not fit the model, or the budget does not reach every candidate.
 */
export function evaluationsOf(
  info: ModelInfo,
  { strategy, budget }: Pick<ClassifyOptions, 'strategy' | 'budget'>,
): Demand {
  const decide = bind(info, { strategy, budget });
  const first = info.candidates[0]?.classidx;
  const lead = counted(info.levels).map(({ weight, share }) => (weight > 0 ? share / weight : 1));
  const isFirst = (candidate: number) => info.candidates[candidate]!.classidx === first;
  const least = playTrial(
    info,
    decide,
    (candidate, level) => (isFirst(candidate) ? 0 : lead[level]!),
    budget,
  );
  const most = playTrial(info, decide, () => 0, budget);
  const levels = info.levels.length;
  const firstRound = roundsOf(info, decide, budget).next();
  const groups = firstRound.done ? [] : firstRound.value;
  return {
    least: least.evaluations,
    most: most.evaluations,
    exhaustive: info.candidates.length * levels,
    views: { least: least.visited.length, most: most.visited.length, exhaustive: levels },
    atOnce: groups.reduce((sum, { candidates }) => sum + candidates.length, 0),
  };
}
