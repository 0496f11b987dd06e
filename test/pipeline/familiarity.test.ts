import { describe, expect, test } from 'vitest';
import { fitClasses, type LabelledErrors, thresholdOf } from '../../bench/fit-familiar.ts';
import { parseCard } from '../../src/graph/folders/card.ts';
import type { Familiar } from '../../src/graph/model.ts';
import { distanceOf, isUnfamiliar } from '../../src/pipeline/deciding/familiarity.ts';
import type { Trial } from '../../src/pipeline/deciding/trial.ts';
import { resultOf } from '../../src/pipeline/deciding/verdict.ts';
import { fakeCandidates, gauss } from './fake-model.ts';

/** Two classes whose square roots of errors are about [1, 3] and [3, 1]. */
const TWO: Familiar = {
  t: 10,
  means: [
    [1, 3],
    [3, 1],
  ],
  precision: [
    [4, 0],
    [0, 1],
  ],
  threshold: 5,
  falseAlarms: 0.01,
};

const trialOf = (errors: readonly number[][], t = [10]): Trial => ({
  candidates: fakeCandidates(2),
  levels: [
    { t: 5, weight: 1 },
    { t: 10, weight: 1 },
  ],
  visited: t.map((value) => (value === 5 ? 0 : 1)),
  errors: errors.map((row) => Float32Array.from(row)),
  survivors: [0, 1],
  evaluations: 2 * errors.length,
  risk: 0,
});

describe('distance', () => {
  test('is that of the nearest class', () => {
    expect(distanceOf([1, 9], TWO)).toBe(0);
    expect(distanceOf([4, 16], TWO)).toBe(4 * 1 + 1); // (2, 4) lies (1, 1) from (1, 3)
    expect(distanceOf([16, 1], TWO)).toBe(4); // (4, 1) lies (1, 0) from (3, 1)
  });

  test('uses fitted means and precision, which are found from samples of known classes', () => {
    const rows: LabelledErrors[] = Array.from({ length: 20_000 }, (_, i) => {
      const label = i % 2;
      const shared = gauss(i, 1);
      const roots = [10 + label + shared, 12 - label + shared + 2 * gauss(i, 2)];
      return { label, errors: roots.map((root) => root ** 2) };
    });
    const { means, precision } = fitClasses(rows);
    expect(means.flat().map((value) => Math.round(value * 10))).toEqual([100, 120, 110, 110]);
    // The covariance is [[1, 1], [1, 5]], its inverse [[5, -1], [-1, 1]] / 4.
    expect(precision.flat().map((value) => Math.round(value * 20))).toEqual([25, -5, -5, 5]);
  });

  test('cannot be fitted for a class without images, or if all errors are equal', () => {
    expect(() => fitClasses([{ label: 0, errors: [1, 2] }])).toThrow('class 1 has no images');
    const same = [0, 1, 0, 1].map((label) => ({ label, errors: [1, 1] }));
    expect(() => fitClasses(same)).toThrow('singular');
  });
});

test('the threshold keeps its false-alarm rate on new images, whatever their distribution', () => {
  const rate = 0.01;
  const runs = 200;
  let alarms = 0;
  for (let run = 0; run < runs; run++) {
    const draw = (i: number) => Math.exp(gauss(run, i));
    const threshold = thresholdOf(
      Array.from({ length: 500 }, (_, i) => draw(i)),
      rate,
    );
    for (let i = 500; i < 1500; i++) if (draw(i) > threshold) alarms++;
  }
  // 200 thresholds, each with a spread of its own of about sqrt(rate / 500).
  const spread = Math.sqrt(rate / 500 / runs + rate / 1000 / runs);
  expect(alarms / (1000 * runs)).toBeLessThan(rate + 4 * spread);
  expect(alarms / (1000 * runs)).toBeGreaterThan(rate - 2 / 500 - 4 * spread);
  expect(() => thresholdOf([1, 2, 3], rate)).toThrow('3 images are too few for a rate of 0.01');
});

describe('an image is unfamiliar', () => {
  test('only above the threshold at the level of the card', () => {
    expect(isUnfamiliar(trialOf([[1, 9]]), TWO)).toBe(false);
    expect(isUnfamiliar(trialOf([[25, 25]]), TWO)).toBe(true);
    const both = trialOf(
      [
        [25, 25],
        [1, 9],
      ],
      [5, 10],
    );
    expect(isUnfamiliar(both, TWO)).toBe(false);
  });

  test('not if it is unknown: no card, another level, a missing class, or one no longer evaluated', () => {
    const strange = trialOf([[25, 25]]);
    expect(isUnfamiliar(strange, undefined)).toBe(false);
    expect(isUnfamiliar(trialOf([[25, 25]], [5]), TWO)).toBe(false);
    expect(isUnfamiliar({ ...strange, candidates: strange.candidates.slice(1) }, TWO)).toBe(false);
    expect(isUnfamiliar(trialOf([[25, Number.NaN]]), TWO)).toBe(false);
  });

  test('and its result has a field for it, which others lack', () => {
    const model = { name: 'fake', temperature: 1, familiar: TWO };
    const result = (errors: number[]) =>
      resultOf({ path: 'a', trial: trialOf([errors]), started: 0 }, model, {});
    expect(result([25, 25]).unfamiliar).toBe(true);
    expect('unfamiliar' in result([1, 9])).toBe(false);
  });
});

describe('cards', () => {
  const card = (familiar: object) => () => parseCard({ timesteps: [10], familiar }, 1000, 'card.json');

  test('contain what is familiar', () => {
    expect(card(TWO)().familiar).toEqual(TWO);
    const { t, ...rest } = TWO;
    const sigmas = { sigmas: [0.5], familiar: { ...rest, sigma: 0.5 } };
    expect(parseCard(sigmas, undefined, 'card.json').familiar?.sigma).toBe(0.5);
  });

  test.each<readonly [string, object, RegExp]>([
    [
      'a sigma for a model of timesteps',
      { ...TWO, t: undefined, sigma: 1 },
      /familiar: expected one timestep/,
    ],
    ['two levels', { ...TWO, sigma: 1 }, /familiar: expected one timestep/],
    ['no level', { ...TWO, t: undefined }, /familiar: expected one timestep/],
    ['a ragged matrix', { ...TWO, precision: [[1], [1, 2]] }, /2 x 2 values, got a row of 1/],
    ['a matrix too small', { ...TWO, precision: [[1, 2]] }, /2 x 2 values, got 1 rows/],
    ['a rate of 1', { ...TWO, falseAlarms: 1 }, /falseAlarms/],
  ])('%s is refused', (_, familiar, message) => {
    expect(card(familiar)).toThrow(message);
  });
});
