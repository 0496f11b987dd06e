// How attacks query a classifier: which draws, what is averaged, which logits judge, and what is counted.

import { describe, expect, test } from 'vitest';
import { ask, type Defended } from '../../../src/pipeline/attacking/defended.ts';

/** A classifier whose logits are [10 draw, x], and whose gradient is that of the second logit plus the draw. */
function counting(period: number): Defended & { readonly draws: number[] } {
  const draws: number[] = [];
  const logitsAt = (x: Float64Array, draw: number) => Float64Array.of(10 * draw, x[0]!);
  return {
    classes: 2,
    shape: [1, 1, 1],
    period,
    draws,
    async logits(x, draw) {
      draws.push(draw);
      return logitsAt(x, draw);
    },
    async gradient(x, draw, cotangent) {
      draws.push(draw);
      const logits = logitsAt(x, draw);
      return { logits, gradient: Float64Array.of(cotangent(logits)[1]! + draw) };
    },
  };
}

const x = Float64Array.of(0.5);
const loss = (logits: Float64Array) => ({ value: logits[0]!, gradient: Float64Array.of(0, 2) });

describe('draws', () => {
  const drawsOf = async (period: number, eot: number, randomness: 'known' | 'fresh', queries: number) => {
    const classifier = counting(period);
    const asked = ask(classifier, { eot, randomness });
    for (let k = 0; k < queries; k++) await (k % 2 === 0 ? asked.logits(x) : asked.evaluate(x, loss));
    return classifier.draws;
  };

  test('known: always the first ones; the draws of a period in turn', async () => {
    expect(await drawsOf(1, 2, 'known', 3)).toEqual([0, 1, 0, 1, 0, 1]);
    expect(await drawsOf(3, 2, 'known', 3)).toEqual([0, 1, 2, 0, 1, 2]);
    expect(await drawsOf(3, 1, 'known', 4)).toEqual([0, 1, 2, 0]);
  });

  test('fresh: new ones in every query, after the first period', async () => {
    expect(await drawsOf(1, 2, 'fresh', 2)).toEqual([1, 2, 3, 4]);
    expect(await drawsOf(3, 1, 'fresh', 3)).toEqual([3, 4, 5]);
  });
});

describe('answers', () => {
  test('logits: the mean, and draw 0 judges if it is known and the whole classifier', async () => {
    const answer = (period: number, eot: number, randomness: 'known' | 'fresh') =>
      ask(counting(period), { eot, randomness }).logits(x);
    expect(await answer(1, 3, 'known')).toEqual({
      mean: Float64Array.of(10, 0.5),
      judged: Float64Array.of(0, 0.5),
    });
    const parts = await answer(3, 3, 'known');
    expect(parts.mean[0]).toBeCloseTo(10, 12);
    expect(parts.judged).toEqual(parts.mean);
    expect(await answer(1, 2, 'fresh')).toEqual({
      mean: Float64Array.of(15, 0.5),
      judged: Float64Array.of(15, 0.5),
    });
  });

  test('loss and gradient: means over the draws', async () => {
    const asked = ask(counting(1), { eot: 2, randomness: 'known' });
    expect(await asked.evaluate(x, loss)).toEqual({
      value: 5,
      gradient: Float64Array.of(2.5),
      mean: Float64Array.of(5, 0.5),
      judged: Float64Array.of(0, 0.5),
    });
  });

  test('every draw is a query', async () => {
    const asked = ask(counting(1), { eot: 3, randomness: 'known' });
    await asked.logits(x);
    await asked.evaluate(x, loss);
    await asked.evaluate(x, loss);
    expect(asked.queries).toEqual({ logits: 3, gradients: 6 });
    expect([asked.classes, asked.shape]).toEqual([2, [1, 1, 1]]);
  });

  test('no gradient of a classifier without gradients', async () => {
    const { gradient: _, ...blind } = counting(1);
    const asked = ask(blind, { eot: 1, randomness: 'known' });
    await expect(asked.evaluate(x, loss)).rejects.toThrow(new RangeError('this classifier has no gradients'));
    expect(asked.queries).toEqual({ logits: 0, gradients: 0 });
  });
});
