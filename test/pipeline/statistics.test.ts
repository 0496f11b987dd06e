import { describe, expect, it } from 'vitest';
import {
  incompleteBeta,
  logGamma,
  momentsOf,
  normalTail,
  normalUpper,
  studentTail,
  studentUpper,
  variance,
} from '../../src/pipeline/deciding/statistics.ts';

const near = (got: number, wanted: number, relative = 1e-9) =>
  expect(Math.abs(got - wanted), `${got} for ${wanted}`).toBeLessThanOrEqual(relative * Math.abs(wanted));

describe('moments', () => {
  it('agree with the definition', () => {
    const { count, mean, m2 } = momentsOf([2, 4, 4, 4, 5, 5, 7, 9]);
    expect([count, mean, m2]).toEqual([8, 5, 32]);
    near(variance(momentsOf([2, 4, 4, 4, 5, 5, 7, 9])), 32 / 7);
  });

  it('do not cancel far from zero', () => {
    near(variance(momentsOf([1e9 + 1, 1e9 + 2, 1e9 + 3])), 1);
  });

  it('have no variance below two values', () => {
    expect(variance(momentsOf([]))).toBeNaN();
    expect(variance(momentsOf([3]))).toBeNaN();
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

describe('normal and Student quantiles', () => {
  // Printed tables of the t distribution, upper tails; the last row is the normal.
  it.each([
    [0.025, 1, 12.7062047361747],
    [0.025, 2, 4.30265272974946],
    [0.005, 3, 5.84090930973336],
    [0.025, 10, 2.2281388519649385],
    [0.005, 30, 2.7499956535672],
    [0.05, 120, 1.657650899],
    [0.025, Number.POSITIVE_INFINITY, 1.959963984540054],
    [0.005, Number.POSITIVE_INFINITY, 2.5758293035489],
    [1e-6, Number.POSITIVE_INFINITY, 4.753424308822899],
  ])('upper tail %d with %d degrees of freedom', (tail, df, wanted) => {
    near(studentUpper(tail, df), wanted, 1e-9);
    near(studentUpper(1 - tail, df), -wanted, 1e-9);
  });

  it('closed forms of the tails: Cauchy, two degrees of freedom', () => {
    for (const t of [0.1, 1, 3, 50]) {
      near(studentTail(t, 1), 0.5 - Math.atan(t) / Math.PI, 1e-11);
      near(studentTail(t, 2), 0.5 - t / (2 * Math.sqrt(2 + t * t)), 1e-10);
    }
  });

  it('tail and quantile are inverse, also for fractional degrees of freedom', () => {
    for (const df of [0.7, 2.5, 9.3, 200, Number.POSITIVE_INFINITY])
      for (const tail of [0.4, 0.1, 1e-3, 1e-7]) near(studentTail(studentUpper(tail, df), df), tail, 1e-9);
  });

  it('the normal tail is the same on both sides of the change of series', () => {
    near(normalTail(2.5 - 1e-9), normalTail(2.5 + 1e-9), 1e-7);
    near(normalTail(0), 0.5);
    near(normalTail(6), 9.865876450376981e-10, 1e-10);
    expect(Math.abs(normalUpper(0.5))).toBeLessThan(1e-12);
  });

  it('refuse what is no probability', () => {
    expect(() => studentUpper(0, 3)).toThrow(RangeError);
    expect(() => studentUpper(0.1, 0)).toThrow(RangeError);
  });
});
