// The default: a sequential likelihood-ratio test of every candidate against the best one so far.
//
// With S the (weighted) sum of a rival's paired differences d = error - error of the best over the n levels
// both have seen: the errors of a denoiser are squared distances to the noise, so if the best is right, d has
// mean M = |difference of the two predictions|^2 and a variance proportional to M; if the rival is right, its
// mean is -M and its variance the same. The log-odds of best against rival are therefore 2 S / kappa, where
// kappa = variance / mean is common to all rivals of an image, however far they are (Wald's test; on Fashion-MNIST
// variance / mean is constant to 10 % from the nearest to the farthest tenth of rivals).

import type { Candidate } from '../../graph/model.ts';
import { UsageError } from '../errors.ts';
import { bestOf, levelsSeen, type Strategy, type Trial, weightsOf } from '../trial.ts';

/** Options of the sequential strategy. */
export interface SequentialOptions {
  /** Least probability, in (0, 1), with which the label is that of the exhaustive run; 0.99. */
  readonly confidence?: number;
}

/** How many levels the common kappa counts for in a rival's own variance. */
const SHRINK = 4;

/** Most of the error budget that is left which one look may spend, so that the next look has some, too. */
const SHARE = 0.5;

/**
 * Drops candidates one by one. After every look each rival has a probability of being better than the best
 * after all, 1 / (1 + exp(2 n mean^2 / variance)), where its variance is shrunk towards kappa times its mean;
 * kappa is pooled over all candidates of the image, eliminated ones included. The error budget 1 - confidence
 * is spread over candidates and looks: the least probable go first, as long as their probabilities add up
 * to no more than half of what earlier looks have left.
 *
 * A look is one level; the first one is as many as it takes to know kappa (2 levels for 5 candidates or more),
 * and on long grids a look grows with what was seen (n / 16), which spares round trips. Levels are visited in
 * the model's order, without those of weight 0. The image is done when only prompts of one class are left, or
 * at the end of the grid; a rival of the best's own class decides nothing, so dropping it costs nothing.
 *
 * @throws UsageError unless confidence is in (0, 1).
 *
 * @example
 * classifyImages(source, openModel, { strategy: sequential({ confidence: 0.999 }) })
 */
export function sequential({ confidence = 0.99 }: SequentialOptions = {}): Strategy {
  if (!(confidence > 0 && confidence < 1))
    throw new UsageError(`sequential: confidence is a probability in (0, 1), got ${confidence}`);
  return (candidates, levels) => {
    const counting = levels.flatMap(({ weight }, level) => (weight > 0 ? [level] : []));
    const order = counting.length > 0 ? counting : levels.map((_, level) => level);
    const first = Math.max(2, 1 + Math.ceil(4 / Math.max(1, candidates.length - 1)));
    return (trial) => {
      const { visited, survivors, risk } = trial;
      const seen = visited.length;
      if (oneClass(candidates, survivors)) return { survivors, levels: seen > 0 ? [] : order.slice(0, 1) };
      if (seen === 0) return { survivors, levels: order.slice(0, first) };
      if (seen === order.length) return { survivors: [bestOf(trial, survivors)], levels: [] };
      const kept = seen < 2 ? { survivors, risk: 0 } : drop(trial, (1 - confidence - risk) * SHARE);
      const done = oneClass(candidates, kept.survivors);
      const until = seen + Math.max(1, Math.floor(seen / 16));
      return { ...kept, levels: done ? [] : order.slice(seen, until) };
    };
  };
}

const oneClass = (candidates: readonly Candidate[], among: readonly number[]): boolean =>
  among.every((c) => candidates[c]!.classidx === candidates[among[0]!]!.classidx);

/** Who stays in, when dropping the others may be wrong with probability `budget` at most. */
function drop(trial: Trial, budget: number): { survivors: number[]; risk: number } {
  const { candidates, survivors } = trial;
  const best = bestOf(trial, survivors);
  const rivals = survivors.filter((c) => c !== best).map((candidate) => ({ candidate, chance: 0 }));
  const chances = chancesAgainst(trial, best);
  for (const rival of rivals) rival.chance = chances(rival.candidate);
  rivals.sort((a, b) => a.chance - b.chance || b.candidate - a.candidate);
  const dropped = new Set<number>();
  let risk = 0;
  for (const { candidate, chance } of rivals) {
    if (risk + chance > budget) break;
    dropped.add(candidate);
    if (candidates[candidate]!.classidx !== candidates[best]!.classidx) risk += chance;
  }
  return { survivors: survivors.filter((c) => !dropped.has(c)), risk };
}

/** Mean and sum of squared deviations of weighted paired differences. */
interface Differences {
  readonly count: number;
  readonly mean: number;
  readonly squares: number;
}

/** The probability of a survivor of being better than the best after all. */
function chancesAgainst(trial: Trial, best: number): (candidate: number) => number {
  const weights = weightsOf(trial);
  const differences = trial.candidates.map((_, c) => differencesOf(trial, weights, c, best));
  let squares = 0;
  let means = 0;
  for (const [c, { count, mean, squares: own }] of differences.entries()) {
    if (c === best) continue;
    squares += own;
    means += (count - 1) * Math.max(0, mean);
  }
  const kappa = means > 0 ? squares / means : Number.POSITIVE_INFINITY;
  return (candidate) => {
    const { count, mean, squares: own } = differences[candidate]!;
    if (!(mean > 0)) return 0.5;
    const variance = (own + SHRINK * kappa * mean) / (count - 1 + SHRINK);
    return 1 / (1 + Math.exp((2 * count * mean * mean) / variance));
  };
}

function differencesOf(
  trial: Trial,
  weights: readonly number[],
  candidate: number,
  best: number,
): Differences {
  const count = levelsSeen(trial, candidate);
  const values: number[] = [];
  for (let k = 0; k < count; k++) {
    const row = trial.errors[k]!;
    values.push(weights[k]! * (row[candidate]! - row[best]!));
  }
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  return { count, mean, squares: values.reduce((sum, value) => sum + (value - mean) ** 2, 0) };
}
