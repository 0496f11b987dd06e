// All rounds of one image's trial, in one loop. The operators of a stream make the same rounds stage by stage.

import type { Decide } from './bind.ts';
import { aggregate, eliminate, fanOut, type Group, type ModelInfo, startTrial, type Trial } from './trial.ts';

/**
 * Runs a trial to its end: yields the evaluations of each round, and is given their errors, one row per group
 * in the order of its candidates. Returns the ended trial.
 */
export function* roundsOf(
  info: ModelInfo,
  decide: Decide,
  budget?: number,
): Generator<readonly Group[], Trial, readonly Float32Array[]> {
  let trial = startTrial(info);
  for (;;) {
    const [next, round] = eliminate(trial, decide(trial), budget);
    if (next.decided !== undefined) return next;
    const groups = fanOut(next, round);
    trial = aggregate(next, groups, yield groups);
  }
}

/** Runs a trial to its end with errors that are known for every candidate, level and noise. */
export function playTrial(
  info: ModelInfo,
  decide: Decide,
  errorOf: (candidate: number, level: number, noise: number) => number,
  budget?: number,
): Trial {
  const rounds = roundsOf(info, decide, budget);
  let step = rounds.next();
  while (!step.done) {
    const errors = step.value.map(({ candidates, level, noise }) =>
      Float32Array.from(candidates, (candidate) => errorOf(candidate, level, noise)),
    );
    step = rounds.next(errors);
  }
  return step.value;
}
