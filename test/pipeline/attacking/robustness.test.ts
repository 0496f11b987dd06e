// The table of an evaluation from results made by hand, and the order in which attacks are run.

import { describe, expect, test } from 'vitest';
import { nextAttack, type Result, tableOf, tableText } from '../../../src/pipeline/attacking/robustness.ts';
import { shareOf } from '../../../src/pipeline/attacking/wilson.ts';

const ATTACKS = ['one', 'two'] as const;
const SOME = { every: false };
const EVERY = { every: true };

const result = (key: string, attack: string, right: boolean, queries?: number): Result => ({
  key,
  attack,
  label: 1,
  prediction: right ? 1 : 0,
  margin: right ? 1 : -1,
  right,
  ...(queries === undefined ? {} : { queries }),
});

const byAttack = (...results: Result[]) => new Map(results.map((one) => [one.attack, one]));

describe('the next attack', () => {
  const clean = result('a', 'clean', true);

  test('none without a clean result, or if it is wrong', () => {
    for (const order of [SOME, EVERY]) {
      expect(nextAttack(byAttack(), ATTACKS, order)).toBeUndefined();
      expect(nextAttack(byAttack(result('a', 'clean', false)), ATTACKS, order)).toBeUndefined();
    }
  });

  test('the first that was not run', () => {
    for (const order of [SOME, EVERY]) {
      expect(nextAttack(byAttack(clean), ATTACKS, order)).toBe('one');
      expect(nextAttack(byAttack(clean, result('a', 'one', true)), ATTACKS, order)).toBe('two');
      const whole = byAttack(clean, result('a', 'one', true), result('a', 'two', true));
      expect(nextAttack(whole, ATTACKS, order)).toBeUndefined();
    }
  });

  test('none after one that broke the image, unless every attack is run', () => {
    const broken = byAttack(clean, result('a', 'one', false));
    expect(nextAttack(broken, ATTACKS, SOME)).toBeUndefined();
    expect(nextAttack(broken, ATTACKS, EVERY)).toBe('two');
  });
});

/** Five images: wrong without an attack, broken by one, by two, by both, by none; and two that are not complete. */
const RESULTS: Result[] = [
  result('wrong', 'clean', false),
  result('first', 'clean', true),
  result('first', 'one', false, 10),
  result('first', 'two', true, 5),
  result('second', 'clean', true),
  result('second', 'one', true, 20),
  result('second', 'two', false, 30),
  result('both', 'clean', true),
  result('both', 'one', false, 40),
  result('both', 'two', false, 50),
  result('none', 'clean', true),
  result('none', 'one', true, 60),
  result('none', 'two', true),
  result('half', 'clean', true),
  result('half', 'one', true, 1000),
  result('strange', 'one', true, 1000),
];

describe('the table', () => {
  test('every attack on every image that is right', () => {
    const table = tableOf(RESULTS, ATTACKS, EVERY);
    expect(table).toMatchObject({
      images: 5,
      clean: { count: 4, of: 5, share: 0.8 },
      attacks: [
        { attack: 'one', attacked: 4, robust: { count: 2, of: 5 }, queries: (10 + 20 + 40 + 60) / 4 },
        { attack: 'two', attacked: 4, robust: { count: 2, of: 5 }, queries: (5 + 30 + 50) / 4 },
      ],
      worst: { count: 1, of: 5 },
    });
  });

  test('each attack on the images that are still right, and counting those that still are after it', () => {
    const table = tableOf(RESULTS, ATTACKS, SOME);
    expect(table).toMatchObject({
      images: 5,
      attacks: [
        { attack: 'one', attacked: 4, robust: { count: 2, of: 5 } },
        { attack: 'two', attacked: 2, robust: { count: 1, of: 5 }, queries: 15 },
      ],
      worst: { count: 1, of: 5 },
    });
    expect(tableOf([...RESULTS].reverse(), ATTACKS, SOME)).toEqual(table);
  });

  test('an image without a result for an attack is complete only if an earlier one broke it', () => {
    const results = [result('a', 'clean', true), result('a', 'one', false, 3)];
    expect(tableOf(results, ATTACKS, SOME)).toMatchObject({
      images: 1,
      attacks: [
        { attacked: 1, robust: { count: 0 }, queries: 3 },
        { attacked: 0, robust: { count: 0 }, queries: 0 },
      ],
      worst: { count: 0, of: 1 },
    });
    expect(tableOf(results, ATTACKS, EVERY).images).toBe(0);
  });

  test('no images', () => {
    const { images, clean, attacks } = tableOf([], ATTACKS, SOME);
    expect([images, clean.share, clean.interval]).toEqual([0, 0, [0, 1]]);
    expect(attacks.map(({ queries }) => queries)).toEqual([0, 0]);
  });
});

describe('the text', () => {
  const share = (count: number, of: number, low: number, high: number) => ({
    count,
    of,
    share: count / of,
    interval: [low, high] as const,
  });

  test('has aligned columns: names to the left, numbers to the right', () => {
    const table = {
      images: 200,
      clean: share(150, 200, 0.6857, 0.80509),
      attacks: [
        { attack: 'apgd-ce', attacked: 150, robust: share(8, 200, 0.02, 0.1), queries: 101 },
        { attack: 'square', attacked: 8, robust: share(8, 200, 0.02, 0.1), queries: 5000.25 },
      ],
      worst: share(8, 200, 0.02, 0.1),
    };
    expect(tableText(table, ', attacks in linf')).toBe(
      [
        '            attacked  right  accuracy %   95 % interval  queries',
        'clean                   150       75.00  68.57 to 80.51',
        'apgd-ce          150      8        4.00   2.00 to 10.00    101.0',
        'square             8      8        4.00   2.00 to 10.00   5000.3',
        'worst case                8        4.00   2.00 to 10.00',
        'of 200 images, attacks in linf',
        '',
      ].join('\n'),
    );
  });

  test('without attacks there is no worst case', () => {
    const text = tableText({
      images: 1,
      clean: share(1, 1, 0.2, 1),
      attacks: [],
      worst: share(1, 1, 0.2, 1),
    });
    expect(text.split('\n').map((line) => line.split(' ')[0])).toEqual(['', 'clean', 'of', '']);
    expect(text).toMatch(/of 1 images\n$/);
  });
});

test.each([
  // Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
  [81, 263, 0.2553, 0.3662],
  [15, 148, 0.0624, 0.1605],
  [0, 20, 0, 0.1611],
  [1, 29, 0.0061, 0.1718],
])("Wilson's interval of %i of %i", (count, of, low, high) => {
  const { interval, share } = shareOf(count, of);
  expect(share).toBe(count / of);
  expect(interval[0]).toBeCloseTo(low, 4);
  expect(interval[1]).toBeCloseTo(high, 4);
  const mirrored = shareOf(of - count, of).interval;
  expect(mirrored[1]).toBeCloseTo(1 - interval[0], 12);
});

test("Wilson's interval ends at 0 if none count, and at 1 if all do, exactly", () => {
  for (let of = 1; of <= 60; of++) {
    expect(shareOf(0, of).interval[0]).toBe(0);
    expect(shareOf(of, of).interval[1]).toBe(1);
  }
});
