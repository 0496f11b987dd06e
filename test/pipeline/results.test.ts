// Results by hand: the order of candidates, probabilities, energies, and what a result takes from the model.

import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import type { Candidate, Level } from '../../src/graph/model.ts';
import { gridShare } from '../../src/graph/visiting.ts';
import {
  type ClassErrors,
  fitTemperature,
  holdOut,
  probabilities,
  reliabilityOf,
} from '../../src/pipeline/deciding/calibration.ts';
import { energyOf } from '../../src/pipeline/deciding/energy.ts';
import { distanceOf, isUnfamiliar } from '../../src/pipeline/deciding/familiarity.ts';
import { startTrial, type Trial } from '../../src/pipeline/deciding/trial.ts';
import { resultOf, standings, verdict } from '../../src/pipeline/deciding/verdict.ts';
import { fakeCandidates, fakeLevels } from './fake-model.ts';

const OUT = Number.NaN;

/** A trial whose visited levels, in order, have these errors; OUT for candidates that were out. */
function trialOf(
  rows: readonly (readonly number[])[],
  {
    levels = fakeLevels(rows.length),
    candidates = fakeCandidates(rows[0]!.length),
  }: { levels?: readonly Level[]; candidates?: readonly Candidate[] } = {},
): Trial {
  const last = rows.at(-1)!;
  return {
    ...startTrial({ candidates, levels }),
    visited: rows.map((_, k) => k),
    errors: rows.map((row) => Float32Array.from(row)),
    survivors: candidates.map((_, c) => c).filter((c) => !Number.isNaN(last[c])),
    evaluations: rows.flat().filter((error) => !Number.isNaN(error)).length,
  };
}

describe('standings', () => {
  const LEVELS = [0.5, 1, 2].map((sigma, i) => ({ sigma, weight: 3 - i }));
  const shares = LEVELS.map(gridShare);
  const total = shares.reduce((sum, share) => sum + share, 0);

  test('after one level: the difference, and the spread of all candidates, extrapolated to the grid', () => {
    const [best, second, third] = standings(trialOf([[0.25, 0.5, 1]], { levels: LEVELS }));
    const unit = (3 / shares[0]!) * (total / 6);
    expect(best).toEqual({ candidate: 0, error: expect.closeTo(0.25 * unit, 12), stderr: 0, evaluations: 1 });
    const mean = 1.75 / 3;
    const spread = Math.sqrt(((0.25 - mean) ** 2 + (0.5 - mean) ** 2 + (1 - mean) ** 2) / 2);
    expect(second!.error).toBeCloseTo(0.5 * unit, 10);
    expect(third!.error).toBeCloseTo(unit, 10);
    for (const { stderr } of [second!, third!]) expect(stderr).toBeCloseTo(spread * unit, 10);
  });

  test('of sigmas: a level is expected to differ by its share of the grid', () => {
    const rows = [
      [0.25, 0.5],
      [0.5, 1],
      [2, 2.25],
    ];
    const [, rival] = standings(trialOf(rows, { levels: LEVELS }));
    const differences = [3 * 0.25, 2 * 0.5, 1 * 0.25];
    const sum = differences.reduce((all, d) => all + d, 0);
    const squares = differences.reduce((all, d, k) => all + (d - (shares[k]! * sum) / total) ** 2, 0);
    expect(rival!.error).toBeCloseTo((3 * 0.25 + 2 * 0.5 + 2 + sum) / 6, 10);
    expect(rival!.stderr).toBeCloseTo(Math.sqrt((3 / 2) * squares) / 6, 10);
    expect(rival!.evaluations).toBe(3);
  });

  test('a survivor may trail by a negative difference over what both have seen, a dropped candidate may not', () => {
    // Candidate 1 is dropped with the smaller error, candidate 0 is the best of the survivors.
    const trial = trialOf([
      [0.5, 0.25, 0.75],
      [0.5, OUT, 0.75],
    ]);
    expect(standings(trial).map(({ error }) => error)).toEqual([0.5, 0.5, 0.75]);
    const alive = { ...trial, survivors: [0, 1, 2], visited: [0], errors: trial.errors.slice(0, 1) };
    expect(standings(alive).map(({ error }) => error)).toEqual([0.5, 0.25, 0.75]);
  });
});

describe('the verdict', () => {
  test('of equal errors the best survivor comes first, then the first candidate', () => {
    // Candidates 0 and 1 left with smaller errors than candidate 2 had, which counts as the same as its own.
    const trial = trialOf([
      [0.25, 0.25, 0.5, 1],
      [OUT, OUT, 0.5, 1],
    ]);
    const { top, label, classidx, margin } = verdict(trial, 1);
    expect(top.map((one) => one.classidx)).toEqual([2, 0, 1, 3]);
    expect([label, classidx, margin]).toEqual(['class 2', 2, 0]);
  });

  test('a class has the error, the prompt and the standard error of its best candidate, and all its evaluations', () => {
    const candidates = [
      { label: 'cat', classidx: 4, prompt: 'a cat' },
      { label: 'dog', classidx: 9, prompt: 'a dog' },
      { label: 'cat', classidx: 4, prompt: 'the cat' },
      { label: 'owl', classidx: 1 },
    ];
    const trial = trialOf(
      [
        [0.75, 0.5, 0.25, 1],
        [0.75, 0.625, 0.25, OUT],
        [OUT, 0.5, 0.25, OUT],
      ],
      { candidates },
    );
    const { top, evaluations, label } = verdict(trial, 0.5);
    expect([label, evaluations]).toEqual(['cat', 9]);
    expect(top).toMatchObject([
      { label: 'cat', classidx: 4, prompt: 'the cat', error: 0.25, stderr: 0, evaluations: 5 },
      { label: 'dog', classidx: 9, prompt: 'a dog', evaluations: 3 },
      { label: 'owl', classidx: 1, evaluations: 1 },
    ]);
    expect('prompt' in top[2]!).toBe(false);
    const likelihoods = top.map(({ error }) => Math.exp((0.25 - error) / 0.5));
    const sum = likelihoods.reduce((all, likelihood) => all + likelihood, 0);
    for (const [i, { probability }] of top.entries())
      expect(probability).toBeCloseTo(likelihoods[i]! / sum, 12);
  });

  test('is decided if the strategy ended, or if the whole grid was visited', () => {
    const part = trialOf([[0.5, 1]], { levels: fakeLevels(2) });
    const whole = trialOf([[0.5, 1]]);
    expect(verdict(part, 1).decided).toBe(false);
    expect(verdict(whole, 1).decided).toBe(true);
    expect(verdict({ ...part, decided: true }, 1).decided).toBe(true);
    expect(verdict({ ...whole, decided: false }, 1).decided).toBe(false);
  });

  test('needs evaluations', () => {
    expect(() => verdict(startTrial({ candidates: fakeCandidates(2), levels: fakeLevels(2) }), 1)).toThrow(
      new UsageError('verdict: expected a trial with evaluations, got none'),
    );
  });
});

describe('a result', () => {
  const trial = trialOf([[0.5, 0.25, 0.75, 1, 1.25, 1.5, 1.75]]);
  const ended = { path: 'a.png', trial, started: 1000 };
  const model = { name: 'fake', temperature: 0.5 };

  test('has the verdict, the time, the seed and the model', () => {
    const result = resultOf(ended, { ...model, device: 'a device' }, { now: () => 3500 });
    expect(result).toEqual({
      path: 'a.png',
      ...verdict(trial, 0.5, 5),
      seconds: 2.5,
      seed: 0,
      model: 'fake',
      device: 'a device',
    });
    expect(result.top).toHaveLength(5);
  });

  test("takes the image's seed, or else the model's", () => {
    expect(resultOf({ ...ended, seed: 7n }, { ...model, seed: 3n }, {}).seed).toBe(7);
    expect(resultOf(ended, { ...model, seed: 3n }, {}).seed).toBe(3);
    expect(resultOf({ ...ended, seed: 0 }, { ...model, seed: 3n }, {}).seed).toBe(0);
  });

  test('follows the options before the model', () => {
    expect(resultOf(ended, model, { topK: 2, temperature: 2 })).toMatchObject(verdict(trial, 2, 2));
    expect(resultOf(ended, model, { topK: 2 }).top).toHaveLength(2);
  });

  test('has energies if they are asked for', () => {
    const { classes, energy, energyLevels } = energyOf(trial, 0.5);
    const result = resultOf(ended, model, { energy: true, topK: 3 });
    expect(result).toMatchObject({ energy, energyLevels });
    expect(result.top.map((one) => one.energy)).toEqual([1, 0, 2].map((c) => classes.get(c)));
    expect('classes' in result).toBe(false);
    expect('energy' in resultOf(ended, model, {})).toBe(false);
  });
});

describe('energies', () => {
  test('are those of the levels that all candidates have seen, with the best candidate of each class', () => {
    const candidates = [3, 8, 3].map((classidx) => ({ label: `${classidx}`, classidx }));
    const trial = trialOf(
      [
        [0.5, 1, 0.75],
        [1.5, 2, 0.25],
        [0, OUT, 0],
      ],
      { candidates },
    );
    const { energy, energyLevels, classes } = energyOf(trial, 0.25);
    expect(energyLevels).toBe(2);
    expect([...classes]).toEqual([
      [3, 0.5 / 0.25],
      [8, 1.5 / 0.25],
    ]);
    expect(energy).toBeCloseTo(-Math.log((Math.exp(-2) + Math.exp(-6)) / 2), 12);
  });

  test('need a level that all candidates have seen', () => {
    expect(() => energyOf(trialOf([[0.5, OUT]]), 1)).toThrow(
      new RangeError('energyOf: expected a trial with evaluations, got none'),
    );
  });
});

describe('familiarity', () => {
  const familiar = {
    sigma: 0.5,
    means: [
      [1, 2],
      [5, 5],
    ],
    precision: [
      [2, 1],
      [1, 3],
    ],
    threshold: 7,
    falseAlarms: 0.01,
  };
  const levels = [0.25, 0.5].map((sigma) => ({ sigma, weight: 1 }));
  const unfamiliar = (rows: number[][], more: Partial<Trial> = {}) =>
    isUnfamiliar({ ...trialOf(rows, { levels }), ...more }, familiar);

  test('the distance is a quadratic form of the differences of square roots', () => {
    // (2, 3) lies (1, 1) from the first mean: 2 + 1 + 1 + 3. (2, 1) lies (1, -1) from it: 2 - 1 - 1 + 3.
    expect(distanceOf([4, 9], familiar)).toBe(7);
    expect(distanceOf([4, 1], familiar)).toBe(3);
    expect(distanceOf([25, 25], familiar)).toBe(0);
  });

  test('an image beyond the threshold is unfamiliar, one at the threshold is not', () => {
    expect(
      unfamiliar([
        [0, 0],
        [4, 9],
      ]),
    ).toBe(false);
    expect(
      unfamiliar([
        [0, 0],
        [4, 9.5],
      ]),
    ).toBe(true);
    expect(
      unfamiliar([
        [4, 9.5],
        [1, 4],
      ]),
    ).toBe(false);
  });

  test('an image is never unfamiliar if classes have another order or other numbers', () => {
    const rows = [
      [0, 0],
      [4, 9.5],
    ];
    const classes = (...numbers: number[]) => numbers.map((classidx) => ({ label: `${classidx}`, classidx }));
    expect(unfamiliar(rows, { candidates: classes(0, 1) })).toBe(true);
    expect(unfamiliar(rows, { candidates: classes(1, 0) })).toBe(false);
    expect(unfamiliar(rows, { candidates: classes(0, 2) })).toBe(false);
    expect(unfamiliar(rows, { candidates: classes(0, 1, 2) })).toBe(false);
  });
});

describe('calibration', () => {
  test('probabilities: softmax of -error / temperature', () => {
    const [a, b] = probabilities([0.5, 1], 0.25) as [number, number];
    expect(a / b).toBeCloseTo(Math.exp(2), 12);
    expect(a + b).toBeCloseTo(1, 12);
    expect(probabilities([-1e6, 0], 1e-3)).toEqual([1, 0]);
  });

  test('says why there is no temperature', () => {
    expect(() => fitTemperature([])).toThrow(
      new UsageError('expected labelled images to fit a temperature to, got none'),
    );
    const right = { errors: [0, 1, 2], truth: 0 };
    expect(() => fitTemperature([right, { errors: [3, 2, 1], truth: 2 }])).toThrow(
      new UsageError(
        'all 2 images are classified correctly, so the likelihood has no maximum; add images, some of them misclassified',
      ),
    );
    const useless = { errors: [0, 1], truth: 1 };
    expect(() => fitTemperature([{ errors: [0, 1], truth: 0 }, useless])).toThrow(
      new UsageError(
        'the right classes do not have smaller errors than the others; check that the labels belong to this model',
      ),
    );
  });

  test('a tie is not classified correctly, so there is a temperature', () => {
    // The likelihood of a right class by 1 and of a tie rises to the end; with a wrong one there is a maximum.
    const outcomes = [
      { errors: [0, 1], truth: 0 },
      { errors: [0, 1], truth: 0 },
      { errors: [0, 1], truth: 1 },
    ];
    expect(fitTemperature(outcomes)).toBeCloseTo(1 / Math.log(2), 12);
    expect(fitTemperature([...outcomes, { errors: [1, 1], truth: 0 }])).toBeCloseTo(1 / Math.log(2), 12);
  });

  test('temperatures of any size are found', () => {
    for (const unit of [1e-6, 1e-3, 1, 1e4]) {
      const outcomes: ClassErrors[] = [0, 0, 0, 1].map((truth) => ({ errors: [0, unit], truth }));
      expect((fitTemperature(outcomes) * Math.log(3)) / unit).toBeCloseTo(1, 10);
    }
    // Three classes: the right one is 1 better than one other and 2 better than the next, in 2 of 3 images.
    const three: ClassErrors[] = [0, 0, 1].map((truth) => ({ errors: [0, 1, 2], truth }));
    const found = fitTemperature(three);
    const loss = (temperature: number) => reliabilityOf(three, temperature).negativeLogLikelihood;
    for (const factor of [1 - 1e-4, 1 + 1e-4]) expect(loss(found * factor)).toBeGreaterThan(loss(found));
  });

  test('bins are open below and closed above', () => {
    const outcome = (p: number, truth: number): ClassErrors => ({
      errors: [-Math.log(p), -Math.log(1 - p)],
      truth,
    });
    const { bins, accuracy, expectedCalibrationError } = reliabilityOf(
      [outcome(0.625, 0), outcome(0.75 - 1e-9, 1), outcome(0.75 + 1e-9, 0), { errors: [0, 1e9], truth: 0 }],
      1,
      4,
    );
    expect(bins.map(({ from, to, images }) => [from, to, images])).toEqual([
      [0, 0.25, 0],
      [0.25, 0.5, 0],
      [0.5, 0.75, 2],
      [0.75, 1, 2],
    ]);
    expect(bins.map((bin) => bin.accuracy)).toEqual([0, 0, 0.5, 1]);
    expect(bins[0]!.confidence).toBe(0);
    expect(bins[2]!.confidence).toBeCloseTo(0.6875, 8);
    expect(accuracy).toBe(0.75);
    expect(expectedCalibrationError).toBeCloseTo((2 * 0.1875 + 2 * 0.125) / 4, 8);
    expect(reliabilityOf([outcome(0.625, 0)], 1).bins).toHaveLength(15);
  });

  test('of equal errors the first class is the label', () => {
    const tie = (truth: number) => reliabilityOf([{ errors: [1, 1], truth }], 1).accuracy;
    expect([tie(0), tie(1)]).toEqual([1, 0]);
  });

  test('a share of every class is held out, in order', () => {
    const outcomes = Array.from({ length: 20 }, (_, i) => ({ errors: [i], truth: i % 2 }));
    const split = (share: number) => holdOut(outcomes, share).heldOut.map(({ errors }) => errors[0]);
    expect(split(0.5)).toEqual([2, 3, 6, 7, 10, 11, 14, 15, 18, 19]);
    expect(split(0.3)).toEqual([6, 7, 12, 13, 18, 19]);
    expect(split(0)).toEqual([]);
    const { fit, heldOut } = holdOut(outcomes, 0.3);
    expect([...fit, ...heldOut].sort((a, b) => a.errors[0]! - b.errors[0]!)).toEqual(outcomes);
  });
});
