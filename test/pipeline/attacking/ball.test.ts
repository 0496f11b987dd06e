// Projections into a ball, steepest directions, and 8-bit images within it, by hand.

import { describe, expect, test } from 'vitest';
import { ascent, project } from '../../../src/pipeline/attacking/ball.ts';
import { quantise } from '../../../src/pipeline/attacking/quantise.ts';

const f64 = (...values: number[]) => Float64Array.from(values);
const bytesOf = (x: Float64Array) => [...x].map((v) => v * 255);
const pixels = (...bytes: number[]) => Float64Array.from(bytes, (byte) => byte / 255);

describe('project', () => {
  test('linf: clips each pixel to the ball and to [0, 1]', () => {
    const centre = f64(0.5, 0.5, 0.5, 0.125, 0.875);
    const z = f64(0.625, 0.9, 0.1, -1, 2);
    expect([...project({ norm: 'linf', eps: 0.25 }, z, centre)]).toEqual([0.625, 0.75, 0.25, 0, 1]);
  });

  test('l2: leaves a point in the ball where it is, and brings one outside to the surface', () => {
    const centre = f64(0.5, 0.25);
    expect([...project({ norm: 'l2', eps: 0.5 }, f64(0.75, 0.5), centre)]).toEqual([0.75, 0.5]);
    const [x, y] = project({ norm: 'l2', eps: 0.25 }, f64(0.8, 0.65), centre); // (0.3, 0.4) away
    expect(x).toBeCloseTo(0.65, 12);
    expect(y).toBeCloseTo(0.45, 12);
  });

  test('l2: clips to [0, 1] after the ball', () => {
    expect([...project({ norm: 'l2', eps: 2 }, f64(-0.5, 1.5), f64(0.5, 0.5))]).toEqual([0, 1]);
  });
});

describe('ascent', () => {
  test('linf: the signs', () => {
    expect([...ascent('linf', f64(3, -0.25, 0))]).toEqual([1, -1, 0]);
  });

  test('l2: the unit vector, and no direction without a gradient', () => {
    expect([...ascent('l2', f64(3, -4))]).toEqual([0.6, -0.8]);
    expect([...ascent('l2', f64(0, 0))]).toEqual([0, 0]);
  });
});

describe('quantise', () => {
  test('linf: rounds to bytes in the ball; a radius of whole bytes loses none of them', () => {
    const centre = pixels(100, 100, 100, 0, 255);
    for (const reach of [1, 2, 8, 16]) {
      const x = pixels(100 + reach, 100 - reach, 100.4, -reach, 255 + reach);
      const found = bytesOf(quantise(x, centre, { norm: 'linf', eps: reach / 255 }));
      expect(found.map(Math.round)).toEqual([100 + reach, 100 - reach, 100, 0, 255]);
      for (const byte of found) expect(byte).toBeCloseTo(Math.round(byte), 9);
    }
  });

  test('linf: a radius between two bytes reaches the smaller one', () => {
    const x = pixels(102.7, 97.3, 102.2);
    const found = quantise(x, pixels(100, 100, 100), { norm: 'linf', eps: 2.7 / 255 });
    expect(bytesOf(found).map(Math.round)).toEqual([102, 98, 102]);
  });

  test('l2: nothing but rounding if the rounded image is in the ball', () => {
    const x = pixels(102.6, 97.4, 100.2);
    const found = quantise(x, pixels(100, 100, 100), { norm: 'l2', eps: 5 / 255 });
    expect(bytesOf(found).map(Math.round)).toEqual([103, 97, 100]);
  });

  test('linf: the ball is that of each pixel, however many pixels there are', () => {
    const x = pixels(102.6, 97.4, 102.6, 97.4);
    const found = quantise(x, pixels(100, 100, 100, 100), { norm: 'linf', eps: 3 / 255 });
    expect(bytesOf(found).map(Math.round)).toEqual([103, 97, 103, 97]);
  });

  test('l2: the values that grew most go back first, until the image fits', () => {
    // Rounded, the offsets are 1, 3, 3 and -3, whose squares add up to 28; they grew by -0.4, 0.2, 0.4 and 0.3.
    const centre = pixels(100, 100, 100, 100);
    const x = pixels(101.4, 102.8, 102.6, 97.3);
    const within = (square: number) =>
      bytesOf(quantise(x, centre, { norm: 'l2', eps: Math.sqrt(square) / 255 })).map(
        (byte) => Math.round(byte) - 100,
      );
    expect(within(28)).toEqual([1, 3, 3, -3]);
    expect(within(27.9)).toEqual([1, 3, 2, -3]);
    expect(within(23)).toEqual([1, 3, 2, -3]);
    expect(within(22.9)).toEqual([1, 3, 2, -2]);
    expect(within(18)).toEqual([1, 3, 2, -2]);
    expect(within(17.9)).toEqual([1, 2, 2, -2]);
    // The first value came nearer to the centre by rounding, so it is left alone even if the ball is smaller.
    expect(within(12.9)).toEqual([1, 2, 2, -2]);
  });

  test('l2: of values that grew by the same the earlier ones go back', () => {
    const x = pixels(100.5, 100.5, 100.5, 100.5);
    const found = quantise(x, pixels(100, 100, 100, 100), { norm: 'l2', eps: Math.SQRT2 / 255 });
    expect(bytesOf(found).map((byte) => Math.round(byte) - 100)).toEqual([0, 0, 1, 1]);
  });
});
