// The trial of one image: which candidates are still in, at which noise levels they were compared, with which
// errors. Strategies and verdicts are functions of the trial. Nothing else is remembered of an image, so the
// evaluations that it asks for depend on its own errors alone.

import type { Candidate, Level, Model, NoisePairing } from '../../graph/model.ts';
import { gridShare } from '../../graph/visiting.ts';
import { sum } from '../../numbers.ts';

/** What is known of one image. */
export interface Trial {
  readonly candidates: readonly Candidate[];
  readonly levels: readonly Level[];
  /** How the model pairs noise with levels; see `Model.noisePairing`. */
  readonly noisePairing?: NoisePairing | undefined;
  /** Indices of the levels evaluated so far, in order. */
  readonly visited: readonly number[];
  /** One row per visited level, one error per candidate (before weights); NaN for candidates that were already out. */
  readonly errors: readonly Float32Array[];
  /** Indices of the candidates still in, ascending. */
  readonly survivors: readonly number[];
  /** Evaluations spent. */
  readonly evaluations: number;
  /** Probability of a wrong label that the strategy has accepted so far by dropping candidates. */
  readonly risk: number;
  /** True if the strategy ended the trial, false if the budget did; undefined while the strategy asks for more. */
  readonly decided?: boolean;
}

/** A strategy's answer: who stays in, and at which levels (indices, in this order) they are evaluated next. */
export interface Round {
  readonly survivors: readonly number[];
  /** Empty when the strategy has finished. */
  readonly levels: readonly number[];
  /** Probability of a wrong label that this round accepts; 0. */
  readonly risk?: number;
  /** How noise is paired with levels, for a model that leaves it open. Default: `level`. */
  readonly noisePairing?: NoisePairing;
}

/** What a strategy knows of a model. */
export type ModelInfo = Pick<Model, 'candidates' | 'levels' | 'kappa' | 'noisePairing'>;

/**
 * Decides which candidates are evaluated at which levels. A strategy is bound to a model once, where it checks that it
 * fits (and throws `UsageError` if not). It is then asked for a round each time the errors of the last one are there.
 */
export type Strategy = (info: ModelInfo) => (trial: Trial) => Round;

/** Candidates of an image that are evaluated at the same level with the same noise. */
export interface Group {
  readonly candidates: readonly number[];
  readonly level: number;
  readonly noise: number;
}

/** Returns a trial without evaluations: every candidate is in. */
export function startTrial({ candidates, levels, noisePairing }: ModelInfo): Trial {
  return {
    candidates,
    levels,
    noisePairing,
    visited: [],
    errors: [],
    survivors: candidates.map((_, c) => c),
    evaluations: 0,
    risk: 0,
  };
}

/**
 * Returns the evaluations that a round asks for, one group per level, in order. Noise index i belongs to
 * level i, so that every strategy compares the same noised images; the published staged schedule, and models
 * with a file of noises, use noise k at the k-th level visited instead.
 */
export function fanOut({ noisePairing, visited }: Trial, round: Round): Group[] {
  const byVisit = noisePairing === 'visit' || round.noisePairing === 'visit';
  return round.levels.map((level, k) => ({
    candidates: round.survivors,
    level,
    noise: byVisit ? visited.length + k : level,
  }));
}

/** Returns the trial with the errors of all groups of a round, each in the order of `group.candidates`. */
export function aggregate(trial: Trial, groups: readonly Group[], errors: readonly Float32Array[]): Trial {
  let evaluations = trial.evaluations;
  const rows = groups.map((group, k) => {
    const row = new Float32Array(trial.candidates.length).fill(Number.NaN);
    group.candidates.forEach((candidate, i) => {
      row[candidate] = errors[k]?.[i] ?? Number.NaN;
    });
    evaluations += group.candidates.length;
    return row;
  });
  return {
    ...trial,
    visited: [...trial.visited, ...groups.map(({ level }) => level)],
    errors: [...trial.errors, ...rows],
    evaluations,
  };
}

/**
 * Returns the trial with the survivors of a round, and the round cut to as many levels as the budget allows.
 * The trial ends if the round asks for nothing more, or if `budget` evaluations do not allow another level.
 */
export function eliminate(trial: Trial, round: Round, budget = Number.POSITIVE_INFINITY): [Trial, Round] {
  const affordable = Math.floor((budget - trial.evaluations) / round.survivors.length);
  const levels = round.levels.length > affordable ? round.levels.slice(0, affordable) : round.levels;
  const next = { ...trial, survivors: round.survivors, risk: trial.risk + (round.risk ?? 0) };
  const cut = { ...round, levels };
  return levels.length > 0 ? [next, cut] : [{ ...next, decided: round.levels.length === 0 }, cut];
}

/** Returns how many of the visited levels a candidate has seen: dropped candidates have seen a prefix of them. */
export function levelsSeen(trial: Trial, candidate: number): number {
  let seen = 0;
  while (seen < trial.errors.length && !Number.isNaN(trial.errors[seen]?.[candidate])) seen++;
  return seen;
}

/** How a level counts in sums over levels: the factor of its errors, and how much of the grid it stands for. */
export interface Counted {
  readonly weight: number;
  /** The level's `gridShare`, which has no particular unit. */
  readonly share: number;
}

/** Returns how levels count. If their weights are all 0, they all count the same, so that means always exist. */
export function counted(levels: readonly Level[]): Counted[] {
  const all = levels.map((level) => ({ weight: level.weight, share: gridShare(level) }));
  return all.some(({ share }) => share > 0) ? all : levels.map(() => ({ weight: 1, share: 1 }));
}

/** Returns how the first `count` visited levels count. */
export const countedLevels = (trial: Trial, count = trial.visited.length): Counted[] =>
  counted(trial.visited.slice(0, count).map((level) => trial.levels[level]!));

/**
 * Extrapolates a `partial` sum of weight · error, taken over levels that cover `share` of the grid, to the
 * weighted mean error over the whole grid. If the errors of all levels have the same unit, as those of
 * timesteps do, this is the weighted mean over these levels.
 */
export function gridMean({ levels }: Pick<Trial, 'levels'>, partial: number, share: number): number {
  const weights = sum(levels.map(({ weight }) => weight));
  const shares = sum(levels.map(gridShare));
  return weights > 0 ? (partial / share) * (shares / weights) : partial / share;
}

/** Returns the sum of weight · error of a candidate over the first levels visited, which count as `levels` says. */
const weightedSum = ({ errors }: Trial, levels: readonly Counted[], candidate: number): number =>
  sum(levels.map(({ weight }, k) => weight * errors[k]![candidate]!));

/**
 * Estimates the weighted mean error of a candidate over the grid from the first `count` visited levels, all
 * of which it must have seen. The estimate is exact if these are all levels.
 */
export function weightedMean(trial: Trial, candidate: number, count = trial.visited.length): number {
  const levels = countedLevels(trial, count);
  const share = sum(levels.map((level) => level.share));
  return gridMean(trial, weightedSum(trial, levels, candidate), share);
}

/** Returns the candidate with the smallest weighted mean error so far, out of those given; ties go to the first. */
export function bestOf(trial: Trial, among: readonly number[]): number {
  const levels = countedLevels(trial);
  let best = among[0]!;
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of among) {
    const error = weightedSum(trial, levels, candidate);
    if (error < least) [best, least] = [candidate, error];
  }
  return best;
}
