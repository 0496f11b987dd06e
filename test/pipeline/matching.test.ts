// Tests the scores of matching images and captions.

import { describe, expect, test } from 'vitest';
import { lessUnconditional, matchesOf, scoreOf } from '../../src/pipeline/deciding/matching.ts';

describe('scores', () => {
  test.each([
    [
      'all right',
      [
        [1, 2],
        [2, 1],
      ],
      true,
      true,
    ],
    [
      'image 0 prefers the other caption',
      [
        [2, 1],
        [3, 1],
      ],
      false,
      false,
    ],
    [
      'every image right, but caption 1 prefers image 0',
      [
        [1, 2],
        [4, 3],
      ],
      true,
      false,
    ],
    [
      'every caption right, but image 1 prefers caption 0',
      [
        [1, 5],
        [2, 4],
      ],
      false,
      true,
    ],
    [
      'a tie is wrong',
      [
        [1, 1],
        [2, 1],
      ],
      false,
      false,
    ],
    [
      'three of each',
      [
        [1, 2, 2],
        [2, 1, 2],
        [2, 2, 1],
      ],
      true,
      true,
    ],
    [
      'three of each, the last caption prefers the first image',
      [
        [1, 2, 2],
        [4, 1, 4],
        [5, 5, 3],
      ],
      true,
      false,
    ],
  ])('%s', (_, errors, text, image) => {
    expect(matchesOf(errors)).toEqual({ text, image, group: text && image });
  });

  test('the unconditional error corrects for images that are likely anyway; text scores never change', () => {
    const errors = [
      [1, 2],
      [4, 3],
    ];
    const less = lessUnconditional(errors, [1.5, 4.2]);
    expect(less.map((row) => row.map((x) => Number(x.toFixed(6))))).toEqual([
      [-0.5, 0.5],
      [-0.2, -1.2],
    ]);
    expect(matchesOf(less)).toEqual({ text: true, image: true, group: true });
  });

  test('the interval is 1.96 sqrt(p (1 - p) / n): Winoground of 400 items at 38.5 %', () => {
    const { score, interval, correct } = scoreOf(154, 400);
    expect([score, correct]).toEqual([0.385, 154]);
    expect(interval[0]).toBeCloseTo(0.3373, 4);
    expect(interval[1]).toBeCloseTo(0.4327, 4);
    expect(scoreOf(3, 3).interval).toEqual([1, 1]);
    expect(scoreOf(0, 0)).toEqual({ score: 0, interval: [0, 1], correct: 0 });
    expect(scoreOf(1, 2).interval).toEqual([0, 1]);
  });
});
