// The trial of one image: which candidates are still in, at which noise levels they were compared, with what
// errors. Strategies and verdicts are functions of it; nothing else is ever remembered of an image, so what
// it asks for depends on its own errors alone.

import type { Candidate, Level, Model, NoisePairing } from '../../graph/model.ts';
import { gridShare } from '../../graph/visiting.ts';

/** What is known of one image. */
export interface Trial {
  readonly candidates: readonly Candidate[];
  readonly levels: readonly Level[];
  /** How the model pairs noise with levels; see `Model.noisePairing`. */
  readonly noisePairing?: NoisePairing | undefined;
  /** Indices of the levels evaluated so far, in order. */
  readonly visited: readonly number[];
  /** One row a visited level, one error a candidate (before weights); NaN where it was already out. */
  readonly errors: readonly Float32Array[];
  /** Indices of the candidates still in, ascending. */
  readonly survivors: readonly number[];
  /** Evaluations spent. */
  readonly evaluations: number;
  /** Probability of a wrong label that the strategy has accepted so far by dropping candidates. */
  readonly risk: number;
  /** What the last look decided; undefined while the strategy asks for more. */
  readonly decided?: boolean;
}

/** A strategy's answer: who stays in, and at which levels (indices, in this order) they are evaluated next. */
export interface Round {
  readonly survivors: readonly number[];
  /** Empty when the strategy has finished. */
  readonly levels: readonly number[];
  /** Probability of a wrong label that this look accepts; 0. */
  readonly risk?: number;
  /** How noise is paired with levels, for a model that leaves it open. Default: `level`. */
  readonly noisePairing?: NoisePairing;
}

/** What a strategy knows of a model. */
export type ModelInfo = Pick<Model, 'candidates' | 'levels' | 'kappa' | 'noisePairing'>;

/**
 * Decides who is evaluated where: bound once to a model (the place for checks, which throw `UsageError`), then
 * asked whenever all it asked for is there.
 */
export type Strategy = (facts: ModelInfo) => (trial: Trial) => Round;

/** Some candidates of an image at one (level, noise) which they share. */
export interface Group {
  readonly candidates: readonly number[];
  readonly level: number;
  readonly noise: number;
}

/** A trial of which nothing is known yet: every candidate is in. */
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
 * Returns the evaluations that a look asks for, one fan per level, in order. Noise index i belongs to level i, so that
 * every strategy compares the same noised images; the published staged schedule, and models with a file of noises, use
 * noise k at the k-th level visited instead.
 */
export function fanOut({ noisePairing, visited }: Trial, look: Round): Group[] {
  const byVisit = noisePairing === 'visit' || look.noisePairing === 'visit';
  return look.levels.map((level, k) => ({
    candidates: look.survivors,
    level,
    noise: byVisit ? visited.length + k : level,
  }));
}

/** The trial with the errors of all fans of a look, each in the order of `fan.candidates`. */
export function aggregate(trial: Trial, fans: readonly Group[], errors: readonly Float32Array[]): Trial {
  let evaluations = trial.evaluations;
  const rows = fans.map((fan, k) => {
    const row = new Float32Array(trial.candidates.length).fill(Number.NaN);
    fan.candidates.forEach((candidate, i) => {
      row[candidate] = errors[k]?.[i] ?? Number.NaN;
    });
    evaluations += fan.candidates.length;
    return row;
  });
  return {
    ...trial,
    visited: [...trial.visited, ...fans.map(({ level }) => level)],
    errors: [...trial.errors, ...rows],
    evaluations,
  };
}

/**
 * The trial after a look: survivors are taken over, and where nothing more is asked for, or `budget`
 * evaluations do not allow another level, the trial ends. A look is cut to as many levels as the budget allows.
 */
export function eliminate(trial: Trial, look: Round, budget = Number.POSITIVE_INFINITY): [Trial, Round] {
  const affordable = Math.floor((budget - trial.evaluations) / look.survivors.length);
  const levels = look.levels.length > affordable ? look.levels.slice(0, affordable) : look.levels;
  const next = { ...trial, survivors: look.survivors, risk: trial.risk + (look.risk ?? 0) };
  const cut = { ...look, levels };
  return levels.length > 0 ? [next, cut] : [{ ...next, decided: look.levels.length === 0 }, cut];
}

/** Visited levels of a candidate: eliminated ones have seen a prefix. */
export function levelsSeen(trial: Trial, candidate: number): number {
  let seen = 0;
  while (seen < trial.errors.length && !Number.isNaN(trial.errors[seen]?.[candidate])) seen++;
  return seen;
}

/** A visited level in sums over levels: the factor of its errors, and how much of the grid it stands for. */
export interface Counted {
  readonly weight: number;
  /** Of the sum over all levels of `gridShare`, in no particular unit. */
  readonly share: number;
}

/** How levels count; all the same where their weights are all 0, so that means always exist. */
export function counted(levels: readonly Level[]): Counted[] {
  const all = levels.map((level) => ({ weight: level.weight, share: gridShare(level) }));
  return all.some(({ share }) => share > 0) ? all : levels.map(() => ({ weight: 1, share: 1 }));
}

/** How the first `count` levels visited count. */
export const countedLevels = (trial: Trial, count = trial.visited.length): Counted[] =>
  counted(trial.visited.slice(0, count).map((level) => trial.levels[level]!));

/**
 * What a sum of weight · error over levels whose shares add up to `share` says of the weighted mean error over the
 * whole grid: such sums grow with the share of the grid they cover. Where errors of all levels have one unit, as
 * those of timesteps do, it is the weighted mean over these levels.
 */
export function gridMean({ levels }: Pick<Trial, 'levels'>, sum: number, share: number): number {
  let weights = 0;
  let shares = 0;
  for (const level of levels) {
    weights += level.weight;
    shares += gridShare(level);
  }
  return weights > 0 ? (sum / share) * (shares / weights) : sum / share;
}

/**
 * Weighted mean error of a candidate, as the first `count` levels visited tell it, all of which it has seen; exact
 * when these are all levels.
 */
export function weightedMean(trial: Trial, candidate: number, count = trial.visited.length): number {
  let sum = 0;
  let total = 0;
  for (const [k, { weight, share }] of countedLevels(trial, count).entries()) {
    sum += weight * trial.errors[k]![candidate]!;
    total += share;
  }
  return gridMean(trial, sum, total);
}

/** Of the given candidates, the one with the smallest weighted mean error so far; ties go to the first. */
export function bestOf(trial: Trial, among: readonly number[]): number {
  const levels = countedLevels(trial);
  let best = among[0]!;
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of among) {
    let sum = 0;
    for (let k = 0; k < levels.length; k++) sum += levels[k]!.weight * trial.errors[k]![candidate]!;
    if (sum < least) [best, least] = [candidate, sum];
  }
  return best;
}
