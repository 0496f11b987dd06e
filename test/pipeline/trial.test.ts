// The trial of one image, step by step: what a round evaluates, what its errors become, and what the budget allows.

import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import type { Level } from '../../src/graph/model.ts';
import { gridShare } from '../../src/graph/visiting.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { bind } from '../../src/pipeline/deciding/bind.ts';
import {
  aggregate,
  bestOf,
  countedLevels,
  eliminate,
  fanOut,
  gridMean,
  levelsSeen,
  startTrial,
  type Trial,
  weightedMean,
} from '../../src/pipeline/deciding/trial.ts';
import { fakeCandidates, fakeLevels } from './fake-model.ts';

const INFO = { candidates: fakeCandidates(3), levels: fakeLevels(4) };

/** A trial whose visited levels, in order, have these errors. */
const trialOf = (
  rows: readonly (readonly number[])[],
  levels: readonly Level[] = fakeLevels(rows.length),
): Trial => ({
  ...startTrial({ candidates: fakeCandidates(rows[0]!.length), levels }),
  visited: rows.map((_, k) => k),
  errors: rows.map((row) => Float32Array.from(row)),
  evaluations: rows.length * rows[0]!.length,
});

test('a trial starts with every candidate and without evaluations', () => {
  expect(startTrial({ ...INFO, noisePairing: 'visit' })).toEqual({
    candidates: INFO.candidates,
    levels: INFO.levels,
    noisePairing: 'visit',
    visited: [],
    errors: [],
    survivors: [0, 1, 2],
    evaluations: 0,
    risk: 0,
  });
});

describe('the evaluations of a round', () => {
  const started = { ...startTrial(INFO), visited: [3, 1] };

  test('use the noise of the level', () => {
    expect(fanOut(started, { survivors: [0, 2], levels: [2, 0] })).toEqual([
      { candidates: [0, 2], level: 2, noise: 2 },
      { candidates: [0, 2], level: 0, noise: 0 },
    ]);
  });

  test('use noise k at the k-th visit if the model or the strategy says so', () => {
    const noises = (trial: Trial, noisePairing?: 'visit' | 'level') =>
      fanOut(trial, { survivors: [1], levels: [2, 0], ...(noisePairing && { noisePairing }) }).map(
        ({ noise }) => noise,
      );
    expect(noises(started, 'visit')).toEqual([2, 3]);
    expect(noises({ ...started, noisePairing: 'visit' })).toEqual([2, 3]);
    expect(noises(started, 'level')).toEqual([2, 0]);
  });
});

describe('the errors of a round', () => {
  test('become a row per level, NaN for candidates that are out', () => {
    const groups = [
      { candidates: [0, 2], level: 2, noise: 2 },
      { candidates: [1], level: 0, noise: 0 },
    ];
    const next = aggregate(
      { ...startTrial(INFO), visited: [1], errors: [Float32Array.of(7, 8, 9)], evaluations: 3 },
      groups,
      [Float32Array.of(0.5, 0.25), Float32Array.of(0.75)],
    );
    expect(next.visited).toEqual([1, 2, 0]);
    expect(next.evaluations).toBe(6);
    expect(next.errors.map((row) => [...row])).toEqual([
      [7, 8, 9],
      [0.5, Number.NaN, 0.25],
      [Number.NaN, 0.75, Number.NaN],
    ]);
  });

  test('that are missing are NaN', () => {
    const [group] = fanOut(startTrial(INFO), { survivors: [0, 1], levels: [0] });
    expect([...aggregate(startTrial(INFO), [group!], [Float32Array.of(0.5)]).errors[0]!]).toEqual([
      0.5,
      Number.NaN,
      Number.NaN,
    ]);
    expect([...aggregate(startTrial(INFO), [group!], []).errors[0]!]).toEqual([
      Number.NaN,
      Number.NaN,
      Number.NaN,
    ]);
  });
});

describe('who stays in, within a budget', () => {
  const spent = { ...startTrial(INFO), evaluations: 6, risk: 0.25 };
  const round = { survivors: [0, 2], levels: [3, 1, 0] };

  test('without a budget: the whole round, and the risk adds up', () => {
    const [next, cut] = eliminate(spent, { ...round, risk: 0.125 });
    expect(next).toMatchObject({ survivors: [0, 2], risk: 0.375, evaluations: 6 });
    expect('decided' in next).toBe(false);
    expect(cut).toEqual({ ...round, risk: 0.125 });
    expect(eliminate(spent, round)[0].risk).toBe(0.25);
  });

  test.each([
    [13, 3],
    [12, 3],
    [11, 2],
    [10, 2],
    [9, 1],
    [8, 1],
  ])('a budget of %d allows %d of 3 levels', (budget, count) => {
    const [next, cut] = eliminate(spent, round, budget);
    expect(cut).toEqual({ survivors: [0, 2], levels: [3, 1, 0].slice(0, count) });
    expect(next.decided).toBeUndefined();
  });

  test('a budget that allows no level ends the trial undecided', () => {
    const [next, cut] = eliminate(spent, round, 7);
    expect(cut.levels).toEqual([]);
    expect(next.decided).toBe(false);
  });

  test('a round that asks for nothing ends it decided, whatever the budget', () => {
    expect(eliminate(spent, { ...round, levels: [] })[0].decided).toBe(true);
    expect(eliminate(spent, { ...round, levels: [] }, 6)[0].decided).toBe(true);
  });
});

test('a candidate has seen the levels before its first NaN', () => {
  const trial = trialOf([
    [1, 1, Number.NaN],
    [1, Number.NaN, Number.NaN],
    [1, Number.NaN, Number.NaN],
  ]);
  expect([0, 1, 2].map((c) => levelsSeen(trial, c))).toEqual([3, 1, 0]);
});

describe('means', () => {
  const weights = [1, 3, 0].map((weight, t) => ({ t, weight }));
  const rows = [
    [0.5, 1],
    [0.25, 0],
    [8, 9],
  ];

  test('are weighted, over the first levels or all', () => {
    const trial = trialOf(rows, weights);
    expect(weightedMean(trial, 0)).toBe((0.5 + 3 * 0.25) / 4);
    expect(weightedMean(trial, 0, 1)).toBe(0.5);
    expect(weightedMean(trial, 1, 2)).toBe(0.25);
  });

  test('weights that are all 0 count as 1', () => {
    const none = weights.map((level) => ({ ...level, weight: 0 }));
    expect(weightedMean(trialOf(rows, none), 0, 2)).toBe(0.375);
    expect(countedLevels(trialOf(rows, none))).toEqual(Array(3).fill({ weight: 1, share: 1 }));
    expect(countedLevels(trialOf(rows, weights), 2)).toEqual([
      { weight: 1, share: 1 },
      { weight: 3, share: 3 },
    ]);
  });

  test('of sigmas: a part of the grid is extrapolated by its share, the whole grid is exact', () => {
    const levels = [0.5, 1, 2].map((sigma, i) => ({ sigma, weight: 3 - i }));
    const trial = trialOf(rows, levels);
    const sum = 3 * 0.5 + 2 * 0.25 + 1 * 8;
    expect(weightedMean(trial, 0)).toBeCloseTo(sum / 6, 12);
    const shares = levels.map(gridShare);
    const total = shares.reduce((all, share) => all + share, 0);
    expect(weightedMean(trial, 0, 1)).toBeCloseTo(((3 * 0.5) / shares[0]!) * (total / 6), 12);
    expect(gridMean({ levels }, 2, total / 2)).toBeCloseTo(4 / 6, 12);
    expect(gridMean({ levels: [] }, 2, 4)).toBe(0.5);
  });

  test('the best has the smallest, of those given; the first of equals', () => {
    const trial = trialOf(
      [
        [0.5, 0.25, 0.25, 0],
        [0.5, 0.25, 0.25, 8],
      ],
      weights.slice(0, 2),
    );
    expect(bestOf(trial, [0, 1, 2, 3])).toBe(1);
    expect(bestOf(trial, [2, 1])).toBe(2);
    expect(bestOf(trial, [0, 3])).toBe(0);
    expect(bestOf(trialOf([[Number.NaN, Number.NaN]]), [1])).toBe(1);
  });
});

describe('a strategy is bound to a model', () => {
  test('that has candidates and levels', () => {
    const message = (candidates: number, levels: number) => () =>
      bind({ candidates: fakeCandidates(candidates), levels: fakeLevels(levels) }, {});
    expect(message(0, 4)).toThrow(
      new UsageError('expected candidates and levels to decide by, got 0 candidates and 4 levels'),
    );
    expect(message(3, 0)).toThrow('got 3 candidates and 0 levels');
    expect(message(1, 1)).not.toThrow();
  });

  test('with a budget that reaches every candidate', () => {
    const strategy = all();
    for (const budget of [2, 0, Number.NaN])
      expect(() => bind(INFO, { strategy, budget })).toThrow(
        new UsageError(
          `expected a budget of at least one evaluation for each of 3 candidates, got ${budget}`,
        ),
      );
    expect(() => bind(INFO, { strategy, budget: 3 })).not.toThrow();
  });

  test('by default it is sequential', () => {
    const trial = startTrial(INFO);
    expect(bind(INFO, {})(trial).levels).toHaveLength(2);
    expect(bind(INFO, { strategy: all() })(trial).levels).toHaveLength(4);
  });
});
