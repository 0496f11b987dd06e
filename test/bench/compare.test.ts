// Tests when the comparison of two reports finds a difference.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareReports, discoveryLimit, mannWhitney } from '../../src/bench/compare.ts';
import type { BenchReport, BenchResult } from '../../src/bench/report.ts';
import { randomValues } from '../kernels/harness.ts';

const range = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);

describe("Mann-Whitney's test", () => {
  // Two-sided: twice the share of arrangements at least as extreme. The last one is the example of scipy's mannwhitneyu.
  it.each([
    [range(9), range(9, 9), 2 / 48620],
    [range(7), range(7, 7), 2 / 3432],
    [[1, 3, 5, 7], [2, 4, 6, 8], (2 * 24) / 70],
    [[1, 2, 3, 9], [4, 5, 6, 7, 8], (2 * 18) / 126],
    [[19, 22, 16, 29, 24], [20, 11, 17, 12], 0.1111111111111111],
  ])('of %j and %j has the exact p-value %d', (a, b, p) => {
    expect(mannWhitney(a, b)).toBeCloseTo(p, 12);
    expect(mannWhitney(b, a)).toBeCloseTo(p, 12);
  });

  it('agrees with the normal approximation for large samples', () => {
    const [a, b] = [randomValues(31, 1), randomValues(31, 2).map((x) => x + 0.3)];
    const exact = mannWhitney([...a].slice(0, 30), [...b].slice(0, 30));
    const approximate = mannWhitney([...a], [...b]);
    expect(Math.abs(Math.log(exact / approximate))).toBeLessThan(0.5);
  });

  it('of equal samples is 1', () => {
    expect(mannWhitney([2, 2, 2], [2, 2, 2])).toBe(1);
  });

  it('rejects a true hypothesis at most as often as it says', () => {
    let rejected = 0;
    const trials = 2000;
    for (let seed = 0; seed < trials; seed++) {
      const values = [...randomValues(14, seed)];
      if (mannWhitney(values.slice(0, 7), values.slice(7)) <= 0.05) rejected++;
    }
    expect(rejected / trials).toBeLessThan(0.06);
    expect(rejected / trials).toBeGreaterThan(0.02);
  });

  it('is a probability, and does not depend on which sample comes first or on units', () => {
    const sample = fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(sample, sample, (a, b) => {
        const p = mannWhitney(a, b);
        expect(p).toBeGreaterThan(0);
        expect(p).toBeLessThanOrEqual(1);
        expect(mannWhitney(b, a)).toBeCloseTo(p, 10);
        const scaled = (values: number[]) => values.map((x) => 3 * x + 1);
        expect(mannWhitney(scaled(a), scaled(b))).toBe(p);
      }),
    );
  });
});

it("Benjamini and Hochberg's procedure accepts the p-values up to the last one below its line", () => {
  const paper = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528,
    0.759, 1,
  ]; // the example of their paper (1995), in which four are rejected
  expect(discoveryLimit(paper)).toBe(0.0095);
  expect(discoveryLimit([0.2, 0.9])).toBe(0);
  expect(discoveryLimit([])).toBe(0);
});

const samples = (seed: number, factor = 1, count = 9) =>
  [...randomValues(count, seed)].map((x) => factor * (10 + 0.2 * x));

const report = (results: readonly BenchResult[], families = ['tile']): BenchReport => ({
  bench: 'kernels',
  device: 'a device',
  families,
  repetitions: 9,
  results,
});

describe('comparing two reports', () => {
  const before = report(range(100).map((i) => ({ name: `case ${i}`, family: 'tile', samples: samples(i) })));

  it('finds the changed cases among a hundred, and no others', () => {
    const factors: Readonly<Record<number, number>> = { 3: 1.1, 50: 0.8 };
    const after = report(
      range(100).map((i) => ({
        name: `case ${i}`,
        family: 'tile',
        samples: samples(1000 + i, factors[i] ?? 1),
      })),
    );
    const { differences, conclusive } = compareReports(before, after, 0.05);
    expect(conclusive).toBe(true);
    expect(differences).toHaveLength(100);
    const found = differences.filter(({ verdict }) => verdict !== 'same');
    expect(found.map(({ name, verdict }) => [name, verdict])).toEqual([
      ['case 3', 'slower'],
      ['case 50', 'faster'],
    ]);
    expect(found[0]!.change).toBeCloseTo(0.1, 1);
  });

  it('a significant change that is smaller than the smallest effect does not count', () => {
    const after = report([{ name: 'case 0', samples: samples(7, 1.1) }]);
    const one = report([before.results[0]!]);
    expect(compareReports(one, after, 0.2).differences[0]!.verdict).toBe('same');
    expect(compareReports(one, after, 0.05).differences[0]!.verdict).toBe('slower');
  });

  it('a large change of noisy repetitions does not count', () => {
    const noisy = (values: number[]) => report([{ name: 'a', samples: values }]);
    const { differences } = compareReports(noisy([1, 9, 2, 8, 3, 7, 5]), noisy([9, 1, 8, 10, 2, 9, 7]), 0.05);
    expect(differences[0]!.change).toBeGreaterThan(0.5);
    expect(differences[0]!.verdict).toBe('same');
  });

  it('says if there are too few repetitions to find anything', () => {
    const few = report(range(10).map((i) => ({ name: `${i}`, samples: samples(i, 1, 4) })));
    expect(compareReports(few, few, 0.05).conclusive).toBe(false);
  });

  it('lists what only one report has, and what failed', () => {
    const olds = report([
      { name: 'a', samples: [1] },
      { name: 'b', samples: [1] },
    ]);
    const news = report([
      { name: 'b', error: 'cannot run' },
      { name: 'c', samples: [1] },
    ]);
    expect(compareReports(olds, news, 0)).toMatchObject({
      differences: [],
      onlyOld: ['a', 'b'],
      onlyNew: ['c'],
    });
  });

  it('compares one family with another if each report has one, and else each with itself', () => {
    const plain = report([{ name: 'a', family: 'plain', samples: samples(1, 2) }], ['plain']);
    const tile = report([{ name: 'a', family: 'tile', samples: samples(2) }]);
    expect(compareReports(plain, tile, 0.05).differences).toMatchObject([{ name: 'a', verdict: 'faster' }]);
    const both = report([...plain.results, ...tile.results], ['plain', 'tile']);
    const { differences } = compareReports(both, both, 0.05);
    expect(differences.map(({ family, verdict }) => [family, verdict])).toEqual([
      ['plain', 'same'],
      ['tile', 'same'],
    ]);
  });
});
