import { describe, expect, it } from 'vitest';
import { incompleteBeta, logGamma, studentTail, variance } from '../../src/pipeline/deciding/statistics.ts';

const near = (actual: number, expected: number, relative = 1e-9) =>
  expect(Math.abs(actual - expected), `${actual} for ${expected}`).toBeLessThanOrEqual(
    relative * Math.abs(expected),
  );

describe('variance', () => {
  it('agrees with the definition', () => {
    near(variance([2, 4, 4, 4, 5, 5, 7, 9]), 32 / 7);
  });

  it('is precise far from zero', () => {
    near(variance([1e9 + 1, 1e9 + 2, 1e9 + 3]), 1);
  });

  it('is undefined for fewer than two values', () => {
    expect(variance([])).toBeNaN();
    expect(variance([3])).toBeNaN();
  });
});

describe('special functions', () => {
  it('logGamma: factorials and Gamma(1/2)', () => {
    near(logGamma(11), Math.log(3628800), 1e-13);
    near(logGamma(0.5), Math.log(Math.sqrt(Math.PI)), 1e-12);
    expect(Math.abs(logGamma(1))).toBeLessThan(1e-13);
  });

  it('incompleteBeta: closed forms', () => {
    near(incompleteBeta(0.3, 1, 1), 0.3);
    near(incompleteBeta(0.3, 2, 1), 0.09);
    near(incompleteBeta(0.3, 1, 3), 1 - 0.7 ** 3);
    near(incompleteBeta(0.5, 7, 7), 0.5);
    expect([incompleteBeta(0, 2, 3), incompleteBeta(1, 2, 3)]).toEqual([0, 1]);
  });
});

describe("the tail of Student's t", () => {
  // Integer degrees of freedom: printed tables of the quantiles. Others: the incomplete beta function of mpmath.
  it.each([
    [12.7062047361747, 1, 0.025],
    [4.30265272974946, 2, 0.025],
    [5.84090930973336, 3, 0.005],
    [2.2281388519649385, 10, 0.025],
    [2.7499956535672, 30, 0.005],
    [1.657650899, 120, 0.05],
    [1.5, 0.7, 0.22018254850962],
    [2.75, 2.5, 0.0433338472257954],
    [40, 9.3, 4.996146549692598e-12],
    [6, 200, 4.557560174405193e-9],
  ])('P(T > %d) with %d degrees of freedom', (t, df, expected) => {
    near(studentTail(t, df), expected, 1e-9);
    near(studentTail(-t, df), 1 - expected, 1e-9);
  });

  it('has closed forms: Cauchy, two degrees of freedom', () => {
    for (const t of [0.1, 1, 3, 50]) {
      near(studentTail(t, 1), 0.5 - Math.atan(t) / Math.PI, 1e-11);
      near(studentTail(t, 2), 0.5 - t / (2 * Math.sqrt(2 + t * t)), 1e-10);
    }
  });
});
