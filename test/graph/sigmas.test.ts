import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Level } from '../../src/graph/model.ts';
import {
  equallySpaced,
  importanceLevels,
  normalisedError,
  rdcLevels,
  riemannLevels,
  sigmaWeight,
  sigmaWeightings,
  spacings,
  sumTemperature,
} from '../../src/graph/sigmas.ts';

const golden = JSON.parse(readFileSync(new URL('../golden/sigmas.json', import.meta.url), 'utf8'));

const close = (actual: readonly number[], expected: readonly number[]) => {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, i) => {
    expect(Math.abs(value / expected[i]! - 1), `${value} is ${expected[i]}`).toBeLessThan(1e-9);
  });
};

/** Returns the error of the best denoiser of N(0, 0.2²), whose integrals are in the golden file. */
const error = (s: number) => (s * s * 0.04) / (s * s + 0.04);
const sum = (levels: readonly (Level & { sigma: number })[]) =>
  levels.reduce((total, { sigma, weight }) => total + weight * error(sigma), 0);

describe('left Riemann sums', () => {
  it.each(sigmaWeightings)('%s: have the weights that numpy computes', (weighting) => {
    const [from, to, count] = golden.grid.points;
    const levels = riemannLevels(equallySpaced(from, to, count), weighting);
    expect(levels).toHaveLength(125);
    close(
      levels.map(({ weight }) => weight),
      golden.grid[weighting],
    );
    const uneven = riemannLevels(golden.uneven.points, weighting);
    expect(uneven.map(({ sigma }) => sigma)).toEqual([0.01, 0.05, 0.3, 1]);
    close(
      uneven.map(({ weight }) => weight),
      golden.uneven[weighting],
    );
  });

  it("give RDC's grid of 125 sigmas from 1e-4, with the weights of RDC's code", () => {
    const levels = rdcLevels();
    expect([levels[0]!.sigma, levels.length]).toEqual([1e-4, 125]);
    expect(levels[124]!.sigma).toBeCloseTo(3 - 2.9999 / 125, 12);
    close(
      levels.map(({ weight }) => weight),
      golden.grid['rdc-code'],
    );
  });

  it('equal a computation by hand for other training statistics', () => {
    // ln 1 = 0: p(1) = 1 / sqrt(2 pi) for both, and (1 + 4) / 4.
    const at = { sigmaData: 2, pMean: 0, pStd: 1 };
    for (const weighting of ['rdc-code', 'lognormal'] as const)
      expect(sigmaWeight(weighting, at)(1)).toBeCloseTo(1.25 / Math.sqrt(2 * Math.PI), 12);
    expect(sigmaWeight('elbo', at)(0.5)).toBe(8);
  });
});

describe('spacings', () => {
  it('are the distances to the next higher sigma, in any order; the highest has the one below it', () => {
    expect(spacings([4, 1, 2])).toEqual([2, 1, 2]);
    expect(spacings([0.5])).toEqual([1]);
  });
});

describe('importance-placed grids', () => {
  it.each(sigmaWeightings)('%s: have the same integral with a third of the points', (weighting) => {
    const expected = golden.integrals[weighting];
    const levels = importanceLevels(42, weighting);
    expect(levels).toHaveLength(42);
    expect(Math.abs(sum(levels) / expected - 1)).toBeLessThan(2e-3);
    // A Riemann sum of three times as many points is no closer.
    const riemann = Math.abs(sum(riemannLevels(equallySpaced(1e-4, 3, 126), weighting)) / expected - 1);
    expect(Math.abs(sum(levels) / expected - 1)).toBeLessThan(riemann);
  });

  it('have equal weights for normalised errors, and ascending sigmas within the range', () => {
    const levels = importanceLevels(9, 'elbo', { range: [0.1, 0.9], sigmaData: 1 });
    const weights = levels.map(({ sigma, weight }) => weight * normalisedError(sigma, 1));
    close(
      weights,
      weights.map(() => weights[0]!),
    );
    const sigmas = levels.map(({ sigma }) => sigma);
    expect(sigmas).toEqual([...sigmas].sort((a, b) => a - b));
    expect(sigmas[0]).toBeGreaterThan(0.1);
    expect(sigmas[8]).toBeLessThan(0.9);
  });

  it('log-normal: are quantiles of ln sigma', () => {
    // 5, 50 and 95 % of N(-1.2, 1.2^2). The range from 1e-4 to 1e4 cuts off nothing of it.
    const levels = importanceLevels(1000, 'lognormal', { range: [1e-4, 1e4] });
    const at = (k: number) => Math.log((levels[k - 1]!.sigma + levels[k]!.sigma) / 2);
    expect(at(500)).toBeCloseTo(-1.2, 3);
    expect(at(50)).toBeCloseTo(-1.2 - 1.2 * 1.6449, 2);
    expect(at(950)).toBeCloseTo(-1.2 + 1.2 * 1.6449, 2);
  });
});

it('the temperature of sums makes the softmax of means equal to the softmax of sums', () => {
  const levels = [{ weight: 0.25 }, { weight: 3 }];
  const [a, b] = [(0.25 * 7 + 3 * 5) / 3.25, 0.25 * 7 + 3 * 5];
  expect(a / sumTemperature(levels)).toBeCloseTo(b, 12);
});
