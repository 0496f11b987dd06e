// `staged`: the published schedule of Li et al. (ICCV 2023). It has a few stages; each is denser than the
// last and keeps a fixed number of candidates.

import { UsageError } from '../../errors.ts';
import { integers } from '../option-schemas.ts';
import { ascending } from './levels.ts';
import type { StrategyEntry } from './strategy-entry.ts';
import { type Strategy, type Trial, weightedMean } from './trial.ts';

/** A schedule: stage k evaluates a sub-grid of `nSamples[k]` levels and keeps the `toKeep[k]` best candidates. */
export interface StagedSchedule {
  readonly nSamples: readonly number[];
  readonly toKeep: readonly number[];
}

/**
 * Returns staged elimination exactly as published. Of the ascending grid G, stage k takes the indices from
 * floor(floor(|G| / n_k) / 2) in strides of floor(|G| / n_k), the first n_k; evaluates those not evaluated
 * before, for every survivor; and keeps the `toKeep[k]` smallest means over all errors so far, ties by lower
 * index. `n_k` is thus the density of a sub-grid, not a count: the levels of successive stages add up.
 * The k-th level evaluated uses noise k. Eliminated candidates keep the mean they left with.
 *
 * @throws UsageError if the lists differ in length or are empty, a number is not a positive integer, the
 *   last stage keeps more than one, or a stage is denser than the grid (when bound to a model).
 *
 * @example
 * import { openClassifier, staged } from 'diffclass-stream';
 *
 * const classifier = await openClassifier('fashion-mnist');
 * const result = await classifier.classify('photo.png', { strategy: staged({ nSamples: [5, 50], toKeep: [3, 1] }) });
 */
export function staged({ nSamples, toKeep }: StagedSchedule): Strategy {
  check(nSamples, toKeep);
  return ({ levels }) => {
    const stages = subGrids(nSamples, ascending(levels));
    return (trial) => {
      let { survivors } = trial;
      for (const [k, { fresh, total }] of stages.entries()) {
        if (total > trial.visited.length)
          return {
            survivors,
            levels: fresh.slice(fresh.length - (total - trial.visited.length)),
            noisePairing: 'visit',
          };
        if (total === trial.visited.length) survivors = keep(trial, survivors, toKeep[k]!);
      }
      return { survivors, levels: [] };
    };
  };
}

interface Stage {
  /** Levels that no earlier stage has evaluated. */
  readonly fresh: readonly number[];
  /** Levels evaluated by the end of the stage. */
  readonly total: number;
}

function subGrids(nSamples: readonly number[], grid: readonly number[]): Stage[] {
  const evaluated = new Set<number>();
  return nSamples.map((n) => {
    if (n > grid.length)
      throw new UsageError(
        `staged: expected at most the ${grid.length} levels of the grid per stage, got ${n}`,
      );
    const stride = Math.floor(grid.length / n);
    const offset = Math.floor(stride / 2);
    const subGrid = Array.from({ length: n }, (_, i) => grid[offset + i * stride]!);
    const fresh = subGrid.filter((level) => !evaluated.has(level));
    for (const level of fresh) evaluated.add(level);
    return { fresh, total: evaluated.size };
  });
}

function keep(trial: Trial, survivors: readonly number[], count: number): number[] {
  const means = new Map(survivors.map((c) => [c, weightedMean(trial, c)]));
  return [...survivors]
    .sort((a, b) => means.get(a)! - means.get(b)! || a - b)
    .slice(0, count)
    .sort((a, b) => a - b);
}

function check(nSamples: readonly number[], toKeep: readonly number[]): void {
  if (nSamples.length === 0 || nSamples.length !== toKeep.length)
    throw new UsageError(
      `staged: expected as many numbers of samples as of candidates to keep, got ${nSamples.length} and ${toKeep.length}`,
    );
  const bad = [...nSamples, ...toKeep].find((n) => !Number.isInteger(n) || n < 1);
  if (bad !== undefined) throw new UsageError(`staged: expected positive integers, got ${bad}`);
  if (toKeep.at(-1) !== 1)
    throw new UsageError(`staged: expected a last stage that keeps 1 candidate, got ${toKeep.at(-1)}`);
}

export const stagedEntry: StrategyEntry<Partial<StagedSchedule>> = {
  name: 'staged',
  summary: 'in the stages of --n-samples and --to-keep',
  options: {
    nSamples: {
      ...integers,
      flags: '--n-samples <list>',
      help: 'staged: noise levels of each stage, such as 50,500; by default the grid has as many levels as the largest',
    },
    toKeep: {
      ...integers,
      flags: '--to-keep <list>',
      help: 'staged: candidates kept after each stage, such as 5,1',
    },
  },
  choose({ nSamples, toKeep }) {
    if (!nSamples || !toKeep)
      throw new UsageError(
        '--strategy staged needs --n-samples and --to-keep, such as --n-samples 50,500 --to-keep 5,1',
      );
    if (nSamples.length !== toKeep.length)
      throw new UsageError(
        `--n-samples has ${nSamples.length} stages, --to-keep has ${toKeep.length}; give both the same number`,
      );
    return {
      strategy: staged({ nSamples, toKeep }),
      record: `staged ${nSamples.join(',')} to ${toKeep.join(',')}`,
      gridLength: Math.max(...nSamples),
    };
  },
};
