// Turns the errors of a trial into a label and probabilities.

import { UsageError } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import { sum } from '../../numbers.ts';
import { type Classified, madeBy, type RankedClass } from '../types.ts';
import { energyOf } from './energy.ts';
import { isUnfamiliar } from './familiarity.ts';
import { variance } from './statistics.ts';
import {
  bestOf,
  type Counted,
  countedLevels,
  gridMean,
  levelsSeen,
  type Trial,
  weightedMean,
} from './trial.ts';

/** A candidate with its error, made comparable with the best candidate's. */
interface Standing {
  readonly candidate: number;
  readonly error: number;
  readonly stderr: number;
  readonly evaluations: number;
}

/** The part of a result that depends on the trial alone. */
export type Verdict = Pick<
  Classified,
  'label' | 'classidx' | 'probability' | 'top' | 'margin' | 'decided' | 'evaluations'
>;

/**
 * Returns the standing of every candidate, by index. The best is the survivor with the least weighted mean
 * error over all levels visited. A candidate that left earlier has seen fewer levels, and errors differ far
 * more between levels than between candidates, so its own mean cannot be compared. Its error is the best's
 * mean plus the weighted mean of their paired difference over the levels both have seen. It was worse when it
 * left, so the difference counts as 0 if a later best makes it negative.
 *
 * `stderr` is that of this difference, with the levels as draws from all possible levels and noises (no
 * correction for the finite grid): sqrt(n / (n - 1) sum((w d - m mean)^2)) / sum(m), where m is the share of
 * a level (`gridShare`; its weight w if it has no sigma), converted to the unit of the error. After a single
 * level the spread of all candidates there is used instead. It is 0 for the best itself.
 */
export function standings(trial: Trial): Standing[] {
  const best = bestOf(trial, trial.survivors);
  const least = weightedMean(trial, best);
  const surviving = new Set(trial.survivors);
  return trial.candidates.map((_, candidate) => {
    const evaluations = levelsSeen(trial, candidate);
    if (candidate === best) return { candidate, error: least, stderr: 0, evaluations };
    const { gap, stderr } = pairedGap(trial, candidate, best, evaluations);
    return {
      candidate,
      error: least + (surviving.has(candidate) ? gap : Math.max(0, gap)),
      stderr,
      evaluations,
    };
  });
}

function pairedGap(trial: Trial, candidate: number, best: number, seen: number) {
  const counted = countedLevels(trial, seen);
  const total = sum(counted.map(({ share }) => share));
  if (seen === 1) {
    const [{ weight }] = counted as [Counted];
    const spread = Math.sqrt(variance(trial.errors[0]!));
    const gap = trial.errors[0]![candidate]! - trial.errors[0]![best]!;
    return { gap: gridMean(trial, weight * gap, total), stderr: gridMean(trial, weight * spread, total) };
  }
  const differences = counted.map(
    ({ weight }, k) => weight * (trial.errors[k]![candidate]! - trial.errors[k]![best]!),
  );
  const mean = sum(differences) / total;
  const squares = sum(differences.map((d, k) => (d - counted[k]!.share * mean) ** 2));
  const stderr = Math.sqrt((seen / (seen - 1)) * squares);
  return { gap: gridMean(trial, mean, 1), stderr: gridMean(trial, stderr, total) };
}

/**
 * Returns the verdict on a trial. A class has the error of its best candidate; p(class) = softmax(-error /
 * temperature) over classes (Bayes with a uniform prior over classes; Li et al. 2023, with a temperature,
 * since the plain softmax is close to uniform). The label is always the best survivor's. A trial that no
 * strategy ended is decided if it has seen the whole grid.
 *
 * @throws UsageError for a trial without evaluations.
 */
export function verdict(trial: Trial, temperature: number, topK = Number.POSITIVE_INFINITY): Verdict {
  if (trial.visited.length === 0)
    throw new UsageError('verdict: expected a trial with evaluations, got none');
  const all = standings(trial);
  const best = bestOf(trial, trial.survivors);
  const ranked = [...all].sort(
    (a, b) =>
      a.error - b.error ||
      Number(b.candidate === best) - Number(a.candidate === best) ||
      a.candidate - b.candidate,
  );
  const leaders = new Map<number, Standing>();
  const spent = new Map<number, number>();
  for (const standing of ranked) {
    const { classidx } = trial.candidates[standing.candidate]!;
    if (!leaders.has(classidx)) leaders.set(classidx, standing);
    spent.set(classidx, (spent.get(classidx) ?? 0) + standing.evaluations);
  }
  const least = all[best]!.error;
  const likelihood = (standing: Standing): number => Math.exp((least - standing.error) / temperature);
  let total = 0;
  for (const standing of leaders.values()) total += likelihood(standing);
  const top = [...leaders].map(([classidx, standing]): RankedClass => {
    const { label, prompt } = trial.candidates[standing.candidate]!;
    return {
      label,
      classidx,
      probability: likelihood(standing) / total,
      error: standing.error,
      stderr: standing.stderr,
      evaluations: spent.get(classidx)!,
      ...(prompt === undefined ? {} : { prompt }),
    };
  });
  const first = top[0]!;
  return {
    label: first.label,
    classidx: first.classidx,
    probability: first.probability,
    top: top.slice(0, topK),
    margin: first.probability - (top[1]?.probability ?? 0),
    decided: trial.decided ?? trial.visited.length === trial.levels.length,
    evaluations: trial.evaluations,
  };
}

/** What a result holds in addition to the verdict. */
export interface ResultOptions {
  /** Classes listed in `top`; 5. */
  readonly topK?: number;
  /** Default: the model's own. */
  readonly temperature?: number;
  /** Results also have energies (see `energyOf`). */
  readonly energy?: boolean;
  /** A clock in milliseconds, for `seconds`. */
  readonly now?: () => number;
}

/** A trial that has ended; `started` is when the image was put on the device, by the clock `now`. */
interface EndedTrial {
  readonly path: string;
  readonly trial: Trial;
  readonly started: number;
  /** The seed of the noise, if it is not the model's own. */
  readonly seed?: number | bigint | undefined;
}

/** Returns the result of an image. */
export function resultOf(
  { path, trial, started, seed }: EndedTrial,
  model: Pick<Model, 'name' | 'temperature' | 'seed' | 'device' | 'precision' | 'familiar'>,
  { topK = 5, temperature = model.temperature, energy = false, now = Date.now }: ResultOptions,
): Classified {
  const found = verdict(trial, temperature, topK);
  const result = {
    seconds: (now() - started) / 1000,
    seed: Number(seed ?? model.seed ?? 0),
    ...madeBy(model),
    ...(isUnfamiliar(trial, model.familiar) && { unfamiliar: true as const }),
  };
  if (!energy) return { path, ...found, ...result };
  const { classes, ...energies } = energyOf(trial, temperature);
  const top = found.top.map((one) => ({ ...one, energy: classes.get(one.classidx)! }));
  return { path, ...found, top, ...result, ...energies };
}
