// Single rounds of the sequential strategy against its formulas: whom it drops, at what risk, and what it visits next.

import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import type { Candidate, Level } from '../../src/graph/model.ts';
import { gridShare, visitingOrder } from '../../src/graph/visiting.ts';
import { type SequentialOptions, sequential } from '../../src/pipeline/deciding/sequential.ts';
import { studentTail } from '../../src/pipeline/deciding/statistics.ts';
import { startTrial, type Trial } from '../../src/pipeline/deciding/trial.ts';
import { fakeCandidates, fakeLevels, hash } from './fake-model.ts';

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** Returns levels in an order that is not sorted, with these weights (three or more). */
const mixed = (weights: readonly number[]): Level[] =>
  weights.map((weight, k) => ({ t: (k + Math.ceil(weights.length / 2)) % weights.length, weight }));

interface Start {
  readonly candidates?: readonly Candidate[];
  readonly levels: readonly Level[];
  readonly kappa?: number;
}

/** Returns the round after some levels were visited, in the order given, with these errors. */
function roundAfter(
  { levels, candidates = fakeCandidates(4), ...kappa }: Start,
  options: SequentialOptions,
  visited: readonly number[],
  rows: readonly (readonly number[])[],
  more: Partial<Trial> = {},
) {
  const info = { candidates, levels, ...kappa };
  return sequential(options)(info)({
    ...startTrial(info),
    visited,
    errors: rows.map((row) => Float32Array.from(row)),
    ...more,
  });
}

describe('the likelihood ratio', () => {
  const levels = mixed([3, 1, 0, 2]); // mean weight 1.5
  const kappa = 0.5;
  const rows = [[0.5, 0.75, 0.5625, 1.5]];
  const chanceOf = (difference: number) => 1 / (1 + Math.exp((2 * 3 * difference) / (kappa * 1.5)));
  const [one, two, three] = [0.25, 0.0625, 1].map(chanceOf) as [number, number, number];

  test('starts with one level', () => {
    expect(roundAfter({ levels, kappa }, {}, [], [])).toEqual({ survivors: [0, 1, 2, 3], levels: [0] });
  });

  test.each([
    ['nobody', 2 * three * 0.99, [0, 1, 2, 3], 0],
    ['the least probable', 2 * three * 1.01, [0, 1, 2], three],
    ['one that would not fit with it', 2 * (one + three) * 0.99, [0, 1, 2], three],
    ['both', 2 * (one + three) * 1.01, [0, 2], one + three],
  ])('drops %s if half of the budget allows it', (_, budget, survivors, risk) => {
    const round = roundAfter({ levels, kappa }, { confidence: 1 - budget }, [0], rows);
    expect(round.survivors).toEqual(survivors);
    expect(round.risk).toBeCloseTo(risk, 12);
    expect(round.levels).toEqual([1]);
    expect(two).toBeGreaterThan(one);
  });

  test('what earlier rounds spent is gone', () => {
    const budget = 2 * (one + three) * 1.01;
    const after = (risk: number) =>
      roundAfter({ levels, kappa }, { confidence: 1 - budget }, [0], rows, { risk });
    expect(after(0).survivors).toEqual([0, 2]);
    expect(after(0.05 * budget).survivors).toEqual([0, 1, 2]);
    expect(after(budget - 1.9 * three).survivors).toEqual([0, 1, 2, 3]);
  });

  test('sums the weighted differences of all levels', () => {
    const more = [...rows, [0.5, 0.75, 0.25, 1]];
    const differences = [3 * 0.25 + 0.25, 3 * 0.0625 - 0.25, 3 + 0.5];
    // Candidate 2 is the best now.
    const best = differences[1]!;
    const chances = [0 - best, differences[0]! - best, differences[2]! - best].map(
      (difference) => 1 / (1 + Math.exp((2 * difference) / (kappa * 1.5))),
    );
    const {
      survivors,
      risk,
      levels: next,
    } = roundAfter({ levels, kappa }, { confidence: 0.5 }, [0, 1], more);
    expect(survivors).toEqual([0, 2]);
    expect(risk).toBeCloseTo(chances[1]! + chances[2]!, 12);
    expect(next).toEqual([3]);
  });

  test('the option overrides the model', () => {
    const confidence = 0.9;
    const round = (model: number, option?: number) =>
      roundAfter({ levels, kappa: model }, { confidence, ...(option && { kappa: option }) }, [0], rows);
    expect(round(0.01)).toEqual(round(100, 0.01));
    expect(round(100).survivors).toEqual([0, 1, 2, 3]);
    expect(round(0.01).survivors).toEqual([0]);
  });

  test('without weights every level counts as 1', () => {
    const { risk } = roundAfter(
      { levels: mixed([0, 0, 0, 0]), kappa },
      { confidence: 0.1 },
      [0],
      [[0.5, 1.5, 1.5, 0.5]],
    );
    expect(risk).toBeCloseTo(2 / (1 + Math.exp(2 / kappa)), 12);
  });

  test('of equally probable rivals the last goes first', () => {
    const chance = chanceOf(0.25);
    const equal = [[0.5, 0.75, 0.75, 0.75]];
    const kept = (count: number) =>
      roundAfter({ levels, kappa }, { confidence: 1 - 2 * chance * count * 1.01 }, [0], equal).survivors;
    expect(kept(1)).toEqual([0, 1, 2]);
    expect(kept(2)).toEqual([0, 1]);
  });

  test("rivals of the best's own class cost none of the budget", () => {
    const candidates = [5, 5, 6, 7].map((classidx) => ({ label: `${classidx}`, classidx }));
    const after = (budget: number) =>
      roundAfter({ levels, kappa, candidates }, { confidence: 1 - budget }, [0], rows);
    // Candidates 3 and 1 are dropped; only candidate 3 is of another class.
    const round = after(2 * (one + three) * 1.01);
    expect(round.survivors).toEqual([0, 2]);
    expect(round.risk).toBeCloseTo(three, 12);
  });
});

describe('the paired t-test', () => {
  const errorsOf = (levels: readonly Level[], count: number, spread: number) =>
    Array.from({ length: count }, (_, k) =>
      Array.from({ length: 4 }, (__, c) =>
        Math.fround((c * 0.25 + spread * hash(c, k, 17)) / (levels[k]!.sigma ?? 1)),
      ),
    );

  /** The chances of the rivals, by the formulas in the comment of the test. */
  function chancesOf(levels: readonly Level[], rows: readonly (readonly number[])[]) {
    const counting = levels.filter(({ weight }) => weight > 0);
    const size = sum(counting.map(gridShare));
    const m = rows.map((_, k) => gridShare(levels[k]!) / size);
    const [all, some] = [
      sum(counting.map((level) => (gridShare(level) / size) ** 2)),
      sum(m.map((x) => x * x)),
    ];
    const seen = sum(m);
    const n = seen ** 2 / some;
    const rivals = [1, 2, 3].map((c) => rows.map((row, k) => levels[k]!.weight * (row[c]! - row[0]!)));
    const means = rivals.map((y) => sum(y) / seen);
    // Each residual y - m mean has the variance v (m^2 - 2 m^3 / seen + m^2 some / seen^2).
    const units = sum(m.map((x) => x ** 2 - (2 * x ** 3) / seen + (x ** 2 * some) / seen ** 2));
    const variances = rivals.map(
      (y, r) => sum(y.map((value, k) => (value - m[k]! * means[r]!) ** 2)) / units,
    );
    const pooled = sum(variances) / 3;
    return means.map((mean, r) => {
      const variance = ((n - 1) * variances[r]! + 8 * pooled) / (n - 1 + 8);
      const error = Math.sqrt(variance * (all - some + (1 - seen) ** 2 / n));
      return studentTail(mean / error, n - 1 + Math.min(8, ((n - 1) * 2) / 3));
    });
  }

  const cases = [
    ['equal shares', mixed(Array(12).fill(1)), 3, 2],
    ['equal shares, many levels', mixed(Array(40).fill(2)), 30, 3],
    ['unequal weights', mixed([1, 2, 0.5, 3, 1, 1, 4, 0.25, 1, 2]), 5, 2],
    ['two levels', mixed([1, 2, 1, 1, 1]), 2, 0.5],
    [
      'sigmas',
      mixed([1, 2, 3, 1, 2, 3]).map(({ t, weight }) => ({ sigma: 0.25 * (t! + 1), weight })),
      4,
      0.5,
    ],
  ] as const;
  test.each(cases)('%s: the risk of a round is the sum of the tails', (_, levels, count, spread) => {
    const rows = errorsOf(levels, count, spread);
    const visited = rows.map((__, k) => k);
    const chances = chancesOf(levels, rows);
    for (const chance of chances) {
      expect(chance).toBeGreaterThan(1e-12);
      expect(chance).toBeLessThan(0.5);
    }
    const order = [0, 1, 2].sort((a, b) => chances[a]! - chances[b]!);
    let total = 0;
    for (const [dropped, i] of order.entries()) {
      total += chances[i]!;
      const confidence = 1 - 2 * total * 1.000001;
      if (!(confidence > 0)) break;
      const round = roundAfter({ levels }, { confidence }, visited, rows);
      expect(round.survivors).toHaveLength(3 - dropped);
      expect(round.risk! / total).toBeCloseTo(1, 6);
      const less = roundAfter({ levels }, { confidence: 1 - 2 * total * 0.999999 }, visited, rows);
      expect(less.survivors).toHaveLength(4 - dropped);
    }
    expect(order.length).toBe(3);
  });

  test('starts with two levels; cut to one by a budget, it goes on with the second', () => {
    const levels = mixed([1, 1, 1, 1]);
    expect(roundAfter({ levels }, {}, [], [])).toEqual({ survivors: [0, 1, 2, 3], levels: [0, 1] });
    expect(roundAfter({ levels }, {}, [0], [[0, 1, 2, 3]])).toEqual({ survivors: [0, 1, 2, 3], levels: [1] });
  });

  test('drops nobody as long as one level has most of the share', () => {
    const rows = [
      [0, 1, 2, 3],
      [0, 1, 2, 3],
    ];
    const after = (first: number) => roundAfter({ levels: mixed([first, 1, 1, 1]) }, {}, [0, 1], rows);
    expect(after(100)).toEqual({ survivors: [0, 1, 2, 3], levels: [2], risk: 0 });
    // Differences in proportion to the shares leave no doubt once enough levels count.
    expect(after(1).survivors).toEqual([0]);
    expect(after(3).survivors).toEqual([0]); // 16 / 10 levels of equal share
  });

  test('a rival that equals the best stays', () => {
    const rows = [
      [0.5, 0.5, 1, 1],
      [0.25, 0.25, 1, 1],
      [0.5, 0.5, 1, 1],
    ];
    expect(roundAfter({ levels: mixed(Array(8).fill(1)) }, {}, [0, 1, 2], rows).survivors).toEqual([0, 1]);
  });
});

describe('what is visited', () => {
  /** The order in which levels are visited if nobody is ever dropped. */
  const orderOf = (levels: readonly Level[]): number[] => {
    const info = { candidates: fakeCandidates(2), levels, kappa: 1e9 };
    const decide = sequential()(info);
    for (let trial = startTrial(info); ; ) {
      const { survivors, levels: next } = decide(trial);
      if (next.length === 0) {
        expect(survivors).toEqual([1]);
        return [...trial.visited];
      }
      expect(survivors).toEqual([0, 1]);
      const errors = next.map(() => Float32Array.of(0.5, 0.25));
      trial = { ...trial, visited: [...trial.visited, ...next], errors: [...trial.errors, ...errors] };
    }
  };
  const sigmas = Array.from({ length: 9 }, (_, k) => ({ sigma: 0.1 * (k + 1), weight: 1 + (k % 3) }));

  test('a sorted grid by its shares, whichever way it is sorted', () => {
    const order = visitingOrder(sigmas.map(gridShare));
    expect(orderOf(sigmas)).toEqual(order);
    expect(orderOf([...sigmas].reverse())).toEqual(order.map((k) => 8 - k));
    expect(orderOf(fakeLevels(8))).toEqual(visitingOrder(8));
  });

  test('any other grid in its order', () => {
    const [first, second, ...rest] = sigmas;
    for (const levels of [
      [second!, first!, ...rest],
      [...rest, first!, second!],
      [first!, ...[second!, ...rest].reverse()],
    ])
      expect(orderOf(levels)).toEqual(levels.map((_, k) => k));
  });

  test('levels of weight 0 are left out, unless there are no others', () => {
    expect(orderOf(mixed([1, 0, 2, 0, 1]))).toEqual([0, 2, 4]);
    expect(orderOf(mixed([0, 0, 0]))).toEqual([0, 1, 2]);
  });

  test('rounds grow with the levels seen, to a sixteenth', () => {
    const levels = mixed(Array(80).fill(1));
    const after = (seen: number) =>
      roundAfter(
        { levels, kappa: 1e9, candidates: fakeCandidates(2) },
        {},
        Array.from({ length: seen }, (_, k) => k),
        Array.from({ length: seen }, () => [0.5, 0.5]),
      ).levels;
    expect([1, 15, 31, 32, 47, 48].map((seen) => after(seen).length)).toEqual([1, 1, 1, 2, 2, 3]);
    expect(after(48)).toEqual([48, 49, 50]);
    expect(after(79)).toEqual([79]);
  });

  test('at the end of the grid only the best survivor stays', () => {
    const rows = Array.from({ length: 3 }, () => [0.5, 0.25, 0, 0.375]);
    const round = roundAfter({ levels: mixed([1, 1, 1]), kappa: 1e9 }, {}, [0, 1, 2], rows, {
      survivors: [0, 1, 3],
    });
    expect(round).toEqual({ survivors: [1], levels: [] });
  });

  test('prompts of one class need one level, and no more than that', () => {
    const candidates = [3, 3].map((classidx) => ({ label: `${classidx}`, classidx }));
    const levels = mixed([1, 1, 1]);
    expect(roundAfter({ levels, candidates }, {}, [], [])).toEqual({ survivors: [0, 1], levels: [0] });
    expect(roundAfter({ levels, candidates }, {}, [0], [[0.5, 0.25]])).toEqual({
      survivors: [0, 1],
      levels: [],
    });
    // The only rival of another class is dropped: there is nothing more to ask.
    const three = [...candidates, { label: '4', classidx: 4 }];
    const round = roundAfter({ levels, candidates: three, kappa: 0.01 }, {}, [0], [[0.5, 0.5, 2]]);
    expect(round).toMatchObject({ survivors: [0, 1], levels: [] });
  });
});

test('says which options it refuses', () => {
  for (const confidence of [0, 1, -0.5, 1.5, Number.NaN])
    expect(() => sequential({ confidence })).toThrow(
      new UsageError(`sequential: expected a confidence between 0 and 1, got ${confidence}`),
    );
  for (const kappa of [0, -1, Number.NaN]) {
    const info = { candidates: fakeCandidates(2), levels: fakeLevels(2) };
    const error = new UsageError(`sequential: expected kappa above 0, got ${kappa}`);
    expect(() => sequential({ kappa })(info)).toThrow(error);
    expect(() => sequential()({ ...info, kappa })).toThrow(error);
  }
});
