// How benchmarks compute and print their figures: quantiles, the share of time in which a device is busy, the effect of
// other work on the machine, and tables.

import { describe, expect, it } from 'vitest';
import { disturbanceText, kernelTable } from '../../src/bench/kernel-table.ts';
import type { BenchResult } from '../../src/bench/report.ts';
import { isDisturbed } from '../../src/kernels/device/time.ts';
import { occupancyOf } from '../../src/kernels/device/timestamps.ts';
import { median, quantile } from '../../src/numbers.ts';

describe('quantiles', () => {
  it('are interpolated between the two nearest values, whatever their order', () => {
    expect(quantile([4, 1, 3, 2], 0.25)).toBe(1.75);
    expect(quantile([4, 1, 3, 2], 0.75)).toBe(3.25);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([10, 9, 100])).toBe(10);
    expect(median([])).toBeNaN();
  });
});

describe('the occupancy of a device', () => {
  it('is the share of the time from the first pass to the last in which one ran', () => {
    const passes = [
      { begin: 100, end: 103 },
      { begin: 104, end: 108 },
      { begin: 110, end: 110 },
    ];
    expect(occupancyOf(passes)).toEqual({ busyMs: 7, spanMs: 10, idleShare: expect.closeTo(0.3, 12) });
  });

  it('counts overlapping passes once, in any order', () => {
    const passes = [
      { begin: 5, end: 10 },
      { begin: 0, end: 8 },
      { begin: 1, end: 2 },
    ];
    expect(occupancyOf(passes)).toEqual({ busyMs: 10, spanMs: 10, idleShare: 0 });
  });

  it('of no passes is unknown', () => {
    expect(occupancyOf([])).toBeUndefined();
  });
});

it('only a timing by the clock of the host counts as disturbed, if others used more than a quarter of a core', () => {
  expect(isDisturbed({ clock: 'host', otherCores: 0.24 })).toBe(false);
  expect(isDisturbed({ clock: 'host', otherCores: 0.26 })).toBe(true);
  expect(isDisturbed({ clock: 'device', otherCores: 7 })).toBe(false);
});

const result = (over: Partial<BenchResult>): BenchResult => ({
  name: 'linear 8->8',
  family: 'plain',
  ms: 2,
  quartiles: [1.9, 2.125],
  samples: [2],
  clock: 'host',
  otherCores: 0,
  firstMs: 30.4,
  disturbed: false,
  gflops: 50,
  processorGflops: 80,
  gbytes: 2.5,
  ...over,
});
const peak = { gflops: 100, gbytes: 10 };

describe('the table of kernels', () => {
  it('shows the rate by the clock and its share of the peak, next to the rate by processor time', () => {
    const { titles, line } = kernelTable(['linear 8->8'], ['plain'], { peak, software: true });
    expect(titles.split(/\s{2,}/)).toEqual([
      'case',
      'ms',
      'quartiles',
      'GFLOP/s',
      'of peak',
      'by processor',
      'GB/s',
      'of copy',
      'first ms',
    ]);
    expect(line([result({})]).split(/\s{2,}/)).toEqual([
      ...['linear 8->8', '2.000', '1.900-2.125', '50.0', '50%', '80.0', '2.5', '25%', '30'],
    ]);
    expect(line([result({ disturbed: true })])).toMatch(/ {2}\*$/);
  });

  it('leaves out the rate by processor time on a GPU, and rates of ops without products', () => {
    const { titles, line } = kernelTable(['linear 8->8'], ['tile'], { peak, software: false });
    expect(titles).not.toContain('processor');
    const { gflops: _, processorGflops: __, ...copying } = result({});
    expect(line([copying]).split(/\s{2,}/)).toEqual([
      ...['linear 8->8', '2.000', '1.900-2.125', '2.5', '25%', '30'],
    ]);
  });

  it('shows families next to each other, with their speed compared with the first', () => {
    const { titles, line } = kernelTable(['linear 8->8'], ['plain', 'tile'], { peak, software: true });
    expect(titles.split(/\s{2,}/)).toEqual(['case', 'plain ms', 'tile ms', 'tile / plain']);
    const tile = result({ family: 'tile', ms: 0.5 });
    expect(line([result({}), tile]).split(/\s{2,}/)).toEqual(['linear 8->8', '2.000', '0.500', '4.00x']);
  });

  it('says why a case has no time', () => {
    const failed = { name: 'linear 8->8', family: 'tile', error: 'too large' };
    const rates = kernelTable(['linear 8->8'], ['tile'], { peak, software: true });
    expect(rates.line([failed])).toBe('linear 8->8: too large');
    const families = kernelTable(['linear 8->8'], ['plain', 'tile'], { peak, software: true });
    expect(families.line([result({}), failed])).toMatch(/2\.000 +failed\n {2}tile: too large$/);
  });
});

it('a warning says how many measurements other work disturbed, and how much', () => {
  expect(disturbanceText([result({})])).toBeUndefined();
  const text = disturbanceText([result({}), result({ disturbed: true, otherCores: 1.26 })]);
  expect(text).toContain('up to 1.3 cores during 1 of 2 measurements');
});
