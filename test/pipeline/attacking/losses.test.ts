// Values of the losses by their formulas, and which class counts as which.

import { describe, expect, test } from 'vitest';
import {
  argmax,
  crossEntropy,
  dlr,
  marginOf,
  targetedCrossEntropy,
  targetedDlr,
  targetOf,
} from '../../../src/pipeline/attacking/losses.ts';

const f64 = (...values: number[]) => Float64Array.from(values);

describe('the largest logit', () => {
  test('ties go to the first, and classes can be left out', () => {
    expect(argmax([1, 3, 3, 2])).toBe(1);
    expect(argmax([-5, -4, -6])).toBe(1);
    expect(argmax([1, 3, 3, 2], 1)).toBe(2);
    expect(argmax([1, 3, 3, 2], 1, 2)).toBe(3);
    expect(argmax([9, 1], 0)).toBe(1);
  });

  test('the margin is to the largest other one', () => {
    expect(marginOf(f64(1, 4, 2), 1)).toBe(2);
    expect(marginOf(f64(1, 4, 2), 2)).toBe(-2);
  });
});

describe('cross-entropy', () => {
  // Certainly right, right, wrong and certainly wrong; the second row of probabilities is softmax by definition.
  const rows = [f64(3, 1, -2), f64(0.5, 0.25, 0), f64(-1, 2, 0.5), f64(-30, 5, 4)];
  const probabilities = (z: Float64Array) => {
    const total = z.reduce((sum, v) => sum + Math.exp(v), 0);
    return [...z].map((v) => Math.exp(v) / total);
  };

  test.each([0, 1, 2, 3])('is -ln p, with the gradient p - e (row %d)', (k) => {
    const p = probabilities(rows[k]!);
    for (const label of [0, 1, 2]) {
      const { value, gradient } = crossEntropy(label)(rows[k]!);
      expect(value).toBeCloseTo(-Math.log(p[label]!), 11);
      for (const [c, g] of gradient.entries()) expect(g).toBeCloseTo(p[c]! - (c === label ? 1 : 0), 12);
      const targeted = targetedCrossEntropy(label)(rows[k]!);
      expect(targeted.value).toBe(-value);
      expect([...targeted.gradient]).toEqual([...gradient].map((g) => -g));
    }
  });

  test('stays finite if the classifier is certain, and wrong', () => {
    const { value, gradient } = crossEntropy(0)(f64(-1000, 0, -1000));
    expect(value).toBe(1000);
    expect([...gradient]).toEqual([-1, 1, 0]);
  });
});

describe('difference of logits ratio', () => {
  const z = f64(1, 7, 4, 2, 3);

  test('a right classification is compared with the second, a wrong one with the first', () => {
    expect(dlr(1)(z).value).toBeCloseTo(-(7 - 4) / (7 - 3), 10);
    expect(dlr(2)(z).value).toBeCloseTo(-(4 - 7) / (7 - 3), 10);
    expect(dlr(0)(z).value).toBeCloseTo(-(1 - 7) / (7 - 3), 10);
  });

  test('targeted: the target, over the first less the mean of the third and the fourth', () => {
    expect(targetedDlr(1, 3)(z).value).toBeCloseTo(-(7 - 2) / (7 - 2.5), 10);
    expect(targetedDlr(2, 0)(z).value).toBeCloseTo(-(4 - 1) / (7 - 2.5), 10);
  });

  test('of equal logits the first class comes first', () => {
    const { gradient } = dlr(2)(f64(5, 5, 4, 4));
    // Class 0 is the first and the one compared with, class 2 the third.
    expect(gradient[1]).toBe(0);
    expect(gradient[3]).toBe(0);
    expect(gradient[0]).not.toBe(0);
  });

  test('is finite if all logits are equal', () => {
    const { value, gradient } = dlr(0)(f64(2, 2, 2));
    expect(Math.abs(value)).toBe(0);
    expect(gradient.every(Number.isFinite)).toBe(true);
  });
});

test('targets: the wrong classes by falling logit, over and over', () => {
  const clean = f64(3, 9, 1, 5);
  const targets = (label: number) => [0, 1, 2, 3, 4, 5, 6].map((restart) => targetOf(clean, label, restart));
  expect(targets(1)).toEqual([3, 0, 2, 3, 0, 2, 3]);
  expect(targets(3)).toEqual([1, 0, 2, 1, 0, 2, 1]);
});
