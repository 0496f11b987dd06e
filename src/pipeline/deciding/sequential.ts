// `sequential`, the default: drops rivals one by one, as soon as they are unlikely to overtake the best candidate.

import { UsageError } from '../../errors.ts';
import type { Level } from '../../graph/model.ts';
import { gridShare, visitingOrder } from '../../graph/visiting.ts';
import { sum } from '../../numbers.ts';
import { fraction } from '../option-schemas.ts';
import { ascending } from './levels.ts';
import { studentTail } from './statistics.ts';
import type { StrategyEntry } from './strategy-entry.ts';
import {
  bestOf,
  type Counted,
  counted,
  countedLevels,
  type ModelInfo,
  type Strategy,
  type Trial,
} from './trial.ts';

/** Options of the sequential strategy. */
export interface SequentialOptions {
  /** Least probability, in (0, 1), with which the label is that of the exhaustive run; 0.99. */
  readonly confidence?: number;
  /** See `likelihoodRatio`; the model's own by default, and without one the t-test is used. */
  readonly kappa?: number;
}

/** The largest share of the remaining error budget that one round may spend, so that later rounds have some, too. */
const SHARE = 0.5;

/**
 * Returns a strategy that drops candidates one by one. After every round it computes the probability that
 * each rival beats the best candidate over the whole grid: by the likelihood ratio if the model has a
 * noise-to-signal scale of error gaps (`kappa`), else by a paired t-test. The error budget 1 - confidence is
 * spread over candidates and rounds: the least probable rivals go first, as long as their probabilities add
 * up to at most half of what earlier rounds left.
 *
 * A round is one level (the first round of a t-test: two). On long grids a round grows with the number n of
 * levels seen, to n / 16, which saves round trips to the device. Levels are visited in the model's order (a
 * merely sorted grid in `visitingOrder`), without those of weight 0. The image is done when only prompts of
 * one class are left, or at the end of the grid, where the best is decided anyway. A rival of the best's own
 * class does not change the label, so dropping it costs none of the budget.
 *
 * @throws UsageError unless confidence is in (0, 1) and kappa positive.
 *
 * @example
 * import { openClassifier, sequential } from 'diffclass-stream';
 *
 * const classifier = await openClassifier('fashion-mnist');
 * const result = await classifier.classify('photo.png', { strategy: sequential({ confidence: 0.999 }) });
 */
export function sequential({ confidence = 0.99, kappa }: SequentialOptions = {}): Strategy {
  if (!(confidence > 0 && confidence < 1))
    throw new UsageError(`sequential: expected a confidence between 0 and 1, got ${confidence}`);
  return (info) => {
    const scale = kappa ?? info.kappa;
    if (scale !== undefined && !(scale > 0))
      throw new UsageError(`sequential: expected kappa above 0, got ${scale}`);
    const order = countingLevels(info);
    const grid = counted(order.map((level) => info.levels[level]!));
    const test: Test = scale === undefined ? pairedT(grid) : likelihoodRatio(scale * meanWeight(info));
    const first = scale === undefined ? 2 : 1;
    return (trial) => {
      const { visited, survivors, risk } = trial;
      const seen = visited.length;
      if (oneClass(info, survivors)) return { survivors, levels: seen > 0 ? [] : order.slice(0, 1) };
      if (seen === order.length) return { survivors: [bestOf(trial, survivors)], levels: [] };
      if (seen < first) return { survivors, levels: order.slice(seen, first) };
      const kept = drop(trial, test, (1 - confidence - risk) * SHARE);
      const until = seen + Math.max(1, Math.floor(seen / 16));
      return { ...kept, levels: oneClass(info, kept.survivors) ? [] : order.slice(seen, until) };
    };
  };
}

/** Returns the levels in visiting order, without those that do not count. */
function countingLevels({ levels }: ModelInfo): number[] {
  const order = inVisitingOrder(levels);
  const counting = order.filter((level) => levels[level]!.weight > 0);
  return counting.length > 0 ? counting : order;
}

/** Returns the mean weight of all levels; 1 if all weights are 0, since they then count as 1. */
const meanWeight = ({ levels }: ModelInfo): number =>
  sum(levels.map(({ weight }) => weight)) / levels.length || 1;

/** Returns the order given, unless it is that of a sorted grid, whose first levels would say little about the last. */
function inVisitingOrder(levels: readonly Level[]): number[] {
  const given = levels.map((_, level) => level);
  const sorted = ascending(levels);
  const rising = sorted.every((level, k) => level === k);
  const falling = sorted.every((level, k) => level === levels.length - 1 - k);
  const shares = sorted.map((level) => gridShare(levels[level]!));
  return rising || falling ? visitingOrder(shares).map((k) => sorted[k]!) : given;
}

const oneClass = ({ candidates }: Pick<ModelInfo, 'candidates'>, among: readonly number[]): boolean =>
  among.every((c) => candidates[c]!.classidx === candidates[among[0]!]!.classidx);

/** Returns who stays in, if dropping the others may be wrong with probability at most `budget`. */
function drop(trial: Trial, test: Test, budget: number): { survivors: number[]; risk: number } {
  const { survivors } = trial;
  const best = bestOf(trial, survivors);
  const rivals = survivors.filter((c) => c !== best);
  const levels = countedLevels(trial);
  const differences = (rival: number) =>
    levels.map(({ weight }, k) => weight * (trial.errors[k]![rival]! - trial.errors[k]![best]!));
  const chances = test(
    rivals.map(differences),
    levels.map(({ share }) => share),
  );
  const order = rivals.map((_, i) => i).sort((a, b) => chances[a]! - chances[b]! || b - a);
  const dropped = new Set<number>();
  let risk = 0;
  for (const i of order) {
    if (risk + chances[i]! > budget) break;
    dropped.add(rivals[i]!);
    if (!oneClass(trial, [best, rivals[i]!])) risk += chances[i]!;
  }
  return { survivors: survivors.filter((c) => !dropped.has(c)), risk };
}

/**
 * Returns the probability that each rival beats the best in the end, from its weighted paired differences so
 * far and the shares of these levels.
 */
type Test = (rivals: readonly (readonly number[])[], shares: readonly number[]) => number[];

/**
 * Returns Wald's test. The errors of a denoiser are squared distances to the noise, so if the best is right,
 * a rival's difference at a level has mean m = |difference of their predictions|^2 and variance kappa m; if
 * the rival is right, it has mean -m and the same variance. The log-odds after a sum S of differences are
 * thus 2 S / kappa, however far apart the two are, and need no estimate from the few levels seen.
 *
 * Measured on 1,000 Fashion-MNIST images and levels of t < 540: variance / mean is 0.0051 to 0.0058 in every tenth of
 * the rivals but the nearest (0.0092: its mean is small by selection). If errors of levels are correlated, as those of
 * the heads of one network are, kappa is larger and is fitted to how often rivals overtake (`weights/levels.py`).
 */
const likelihoodRatio =
  (kappa: number): Test =>
  (rivals) =>
    rivals.map((differences) => 1 / (1 + Math.exp((2 * sum(differences)) / kappa)));

/** The fewest levels, counted as levels of equal share, from which a variance can be estimated. */
const LEAST = 1.5;

/** The most degrees of freedom that the other rivals may lend to the variance of each. */
const LENT = 8;

/**
 * Returns the paired t-test of the weighted sum over a grid, a finite population: a level's weighted difference y is
 * its share m of the grid times a draw of common mean and variance v (see `gridShare`). The mean is sum(y) / sum(m)
 * over the levels visited, and as many levels as count the same are n = sum(m)^2 / sum(m^2) of them. What is left of
 * the grid, a fraction r with the sum of squares q of its shares, is as uncertain as the mean, so that the mean over
 * all of it has the variance v (q + r^2 / n). With equal shares: v / n times (1 - n / size).
 *
 * A rival's variance is shrunk towards that of all rivals, which stands for up to 8 degrees of freedom (a
 * third of what their number suggests, for they share the best one's noise).
 */
const pairedT = (grid: readonly Pick<Counted, 'share'>[]): Test => {
  const size = sum(grid.map(({ share }) => share));
  const gridSquares = sum(grid.map(({ share }) => (share / size) ** 2));
  return (rivals, given) => {
    const shares = given.map((share) => share / size);
    const seen = sum(shares);
    const squares = sum(shares.map((m) => m ** 2));
    const n = seen ** 2 / squares;
    if (n < LEAST) return rivals.map(() => 0.5);
    const uncertainty = Math.max(0, gridSquares - squares) + (1 - seen) ** 2 / n;
    // The expected sum of squared residuals y - m mean, in units of v.
    const residual = squares - (2 * sum(shares.map((m) => m ** 3))) / seen + squares / n;
    const variances = rivals.map((differences) => {
      const mean = sum(differences) / seen;
      return sum(differences.map((y, k) => (y - shares[k]! * mean) ** 2)) / residual;
    });
    const pooled = sum(variances) / rivals.length;
    return rivals.map((differences, i) => {
      const mean = sum(differences) / seen;
      if (!(mean > 0)) return 0.5;
      const variance = ((n - 1) * variances[i]! + LENT * pooled) / (n - 1 + LENT);
      const lent = Math.min(LENT, ((n - 1) * (rivals.length - 1)) / 3);
      return studentTail(mean / Math.sqrt(variance * uncertainty), n - 1 + lent);
    });
  };
};

export const sequentialEntry: StrategyEntry<Pick<SequentialOptions, 'confidence'>> = {
  name: 'sequential',
  summary: 'each as soon as it is unlikely to win',
  options: {
    confidence: {
      flags: '--confidence <p>',
      help: 'sequential: probability with which the label must be that of strategy all (0.99)',
      schema: fraction,
      expected: 'a number between 0 and 1',
    },
  },
  energyRefusal: 'sequential drops classes after levels that differ from image to image',
  choose: ({ confidence }) => ({
    strategy: sequential(confidence === undefined ? {} : { confidence }),
    record: `sequential, ${confidence ?? 'default'} confidence`,
  }),
};
