// The square attack, on classifiers that only record what they are asked: where it starts, which squares it changes, and
// which changes it keeps.

import { describe, expect, test } from 'vitest';
import type { AttackTrial } from '../../../src/pipeline/attacking/attack.ts';
import { type Random, randomOf } from '../../../src/pipeline/attacking/random.ts';
import { bump, shareAt, square, squareEntry } from '../../../src/pipeline/attacking/square.ts';
import { l2, type Norm } from '../../../src/pipeline/norms.ts';

type Shape = readonly [channels: number, height: number, width: number];

/** Runs the attack; `marginOf` says how good the n-th point is. Returns the points, and the losses reported. */
async function run(
  norm: Norm,
  shape: Shape,
  queries: number,
  {
    eps = 0.125,
    seed = 0,
    grey = 0.5,
    marginOf = (n: number) => -n,
    breaksAt = Number.POSITIVE_INFINITY,
  } = {},
) {
  const length = shape[0] * shape[1] * shape[2];
  const centre = Float64Array.from({ length }, (_, i) => grey + 0.001 * (i % 7));
  const points: Float64Array[] = [];
  const losses: number[] = [];
  const numbers: Drawn[] = [];
  const trial = {
    asked: {
      shape,
      classes: 2,
      async logits(x: Float64Array) {
        const mean = Float64Array.of(marginOf(points.push(x) - 1), 0);
        return { mean, judged: mean };
      },
    },
    centre,
    label: 0,
    ball: { norm, eps },
    random: recorded(randomOf(seed, 'key', 'square'), (drawn) =>
      numbers.push({ ...drawn, query: points.length }),
    ),
    restart: 0,
    clean: Float64Array.of(1, 0),
    async keep(x: Float64Array, loss: number) {
      expect(x).toBe(points.at(-1));
      return losses.push(loss) === breaksAt;
    },
  } as unknown as AttackTrial;
  await square({ queries })(trial);
  return { centre, points, losses, numbers, eps };
}

/** A random number that the attack drew: before which query, from which distribution, and its value. */
interface Drawn {
  readonly query: number;
  readonly kind: keyof Random;
  readonly value: number;
}

/** Returns a stream that reports its numbers. */
function recorded(random: Random, report: (drawn: Omit<Drawn, 'query'>) => void): Random {
  const drawn = (kind: keyof Random, value: number) => {
    report({ kind, value });
    return value;
  };
  return {
    uniform: () => drawn('uniform', random.uniform()),
    normal: () => drawn('normal', random.normal()),
    below: (count) => drawn('below', random.below(count)),
    sign: () => drawn('sign', random.sign()),
  };
}

/** The changed positions of two images, by channel, as [top, left, bottom, right]. */
function boxes(a: Float64Array, b: Float64Array, [channels, height, width]: Shape) {
  return Array.from({ length: channels }, (_, c) => {
    const changed = Array.from({ length: height * width }, (__, i) => i).filter(
      (i) => Math.abs(a[c * height * width + i]! - b[c * height * width + i]!) > 1e-12,
    );
    const rows = changed.map((i) => Math.floor(i / width));
    const columns = changed.map((i) => i % width);
    return {
      count: changed.length,
      box: [Math.min(...rows), Math.min(...columns), Math.max(...rows), Math.max(...columns)],
    };
  });
}

const SHAPE: Shape = [2, 9, 12];

describe('in linf', () => {
  test('it starts with stripes: a column of a channel moves by eps, up or down', async () => {
    const { points, centre } = await run('linf', SHAPE, 1);
    expect(points).toHaveLength(1);
    const [channels, height, width] = SHAPE;
    const signs: number[] = [];
    for (let c = 0; c < channels; c++)
      for (let column = 0; column < width; column++) {
        const at = (row: number) => (c * height + row) * width + column;
        const sign = Math.sign(points[0]![at(0)]! - centre[at(0)]!);
        for (let row = 0; row < height; row++)
          expect(points[0]![at(row)]! - centre[at(row)]!).toBeCloseTo(0.125 * sign, 12);
        signs.push(sign);
      }
    const random = randomOf(0, 'key', 'square');
    expect(signs).toEqual(signs.map(() => random.sign()));
  });

  test('a change is a square of every channel, of the share of pixels of its query', async () => {
    const queries = 60;
    const [channels, height, width] = SHAPE;
    const { points, centre, numbers } = await run('linf', SHAPE, queries, { marginOf: (n) => n });
    expect(points).toHaveLength(queries);
    const sides = new Set<number>();
    for (let k = 1; k < queries; k++) {
      const drawn = numbers.filter(({ query }) => query === k);
      expect(drawn.map(({ kind }) => kind)).toEqual(['below', 'below', 'sign', 'sign']);
      const [top, left, ...signs] = drawn.map(({ value }) => value) as [number, number, ...number[]];
      const side = Math.min(9, Math.max(1, Math.round(Math.sqrt(shareAt(k - 1, queries) * 9 * 12))));
      sides.add(side);
      expect(top + side).toBeLessThanOrEqual(height);
      expect(left + side).toBeLessThanOrEqual(width);
      // No change helps, so all are made to the first point.
      const expected = points[0]!.slice();
      for (let c = 0; c < channels; c++)
        for (let row = top; row < top + side; row++)
          for (let column = left; column < left + side; column++) {
            const i = (c * height + row) * width + column;
            expected[i] = centre[i]! + 0.125 * signs[c]!;
          }
      for (const [i, v] of points[k]!.entries()) expect(v).toBeCloseTo(expected[i]!, 12);
    }
    expect(sides.size).toBeGreaterThan(4);
  });

  test('at the end of a long run the square is a pixel, and reaches every corner', async () => {
    const shape: Shape = [1, 3, 4];
    const queries = 400;
    const { points } = await run('linf', shape, queries, { marginOf: (n) => n });
    const late = points.slice(queries / 2).map((point) => boxes(points[0]!, point, shape)[0]!);
    const seen = new Set(late.filter(({ count }) => count > 0).map(({ box }) => box.join()));
    for (const { count } of late) expect(count).toBeLessThanOrEqual(1);
    for (const corner of ['0,0,0,0', '0,3,0,3', '2,0,2,0', '2,3,2,3']) expect(seen).toContain(corner);
    expect(seen.size).toBe(12);
  });
});

describe('in l2', () => {
  test('every point is on the surface of the ball', async () => {
    const { points, centre, eps } = await run('l2', SHAPE, 40);
    for (const point of points) expect(l2(point.map((v, i) => v - centre[i]!))).toBeCloseTo(eps, 9);
  });

  test('it starts with a grid of bumps of a fifth of the shorter side, in the middle of the image', async () => {
    const shape: Shape = [1, 11, 17]; // bumps of 2 x 2, 5 rows of 8, with a rest of 1: no margin before them
    const { points, centre } = await run('l2', shape, 1);
    const delta = points[0]!.map((v, i) => v - centre[i]!);
    const at = (row: number, column: number) => delta[row * 17 + column]!;
    for (let i = 0; i < 17; i++) expect(at(10, i)).toBe(0);
    for (let i = 0; i < 11; i++) expect(at(i, 16)).toBe(0);
    const size = Math.abs(at(0, 0));
    const random = randomOf(0, 'key', 'square');
    for (let top = 0; top < 10; top += 2)
      for (let left = 0; left < 16; left += 2) {
        const shape = bump(2, random);
        const sign = random.sign();
        const scale = size / Math.abs(shape[0]!);
        for (let i = 0; i < 4; i++)
          expect(at(top + Math.floor(i / 2), left + (i % 2))).toBeCloseTo(sign * scale * shape[i]!, 9);
      }
  });

  test('a rest of 2 pixels or more is shared by both ends', async () => {
    const shape: Shape = [1, 17, 18]; // bumps of 3 x 3: 17 = 1 + 15 + 1, 18 = 18
    const { points, centre } = await run('l2', shape, 1);
    const rows = Array.from({ length: 17 }, (_, row) =>
      Array.from({ length: 18 }, (__, i) => Math.abs(points[0]![row * 18 + i]! - centre[row * 18 + i]!)).some(
        (v) => v > 1e-12,
      ),
    );
    expect([rows[0], rows[1], rows[15], rows[16]]).toEqual([false, true, true, false]);
  });

  test.each([
    ['in the middle of [0, 1]', 0.5, 0.125],
    ['at the end of [0, 1], where the ball is not filled', 0.02, 0.5],
  ])('a change fills a square of an even side and empties another: images %s', async (_, grey, eps) => {
    const queries = 30;
    const [channels, height, width] = SHAPE;
    const { points, centre, numbers } = await run('l2', SHAPE, queries, { marginOf: (n) => n, grey, eps });
    const before = points[0]!.map((v, i) => v - centre[i]!);
    const spare = (eps * eps - l2(before) ** 2) / channels;
    if (grey === 0.5) expect(spare).toBeCloseTo(0, 12);
    else expect(spare).toBeGreaterThan(0.01);
    const sides = new Set<number>();
    for (let k = 1; k < queries; k++) {
      const drawn = numbers.filter(({ query }) => query === k);
      expect(drawn.map(({ kind }) => kind)).toEqual([
        'below',
        'below',
        'below',
        'below',
        'uniform',
        'sign',
        'sign',
      ]);
      const [toTop, toLeft, fromTop, fromLeft, turn, ...signs] = drawn.map(({ value }) => value) as number[];
      const raw = Math.max(3, Math.round(Math.sqrt(shareAt(k - 1, queries) * 9 * 12)));
      const side = Math.min(9, raw + (raw % 2));
      sides.add(side);
      for (const top of [toTop!, fromTop!]) expect(top + side).toBeLessThanOrEqual(height);
      for (const left of [toLeft!, fromLeft!]) expect(left + side).toBeLessThanOrEqual(width);
      const shape = bump(side, { uniform: () => turn } as Random);
      const delta = before.slice();
      for (let c = 0; c < channels; c++) {
        const square = (top: number, left: number) =>
          Array.from(shape, (__, i) => (c * height + top + Math.floor(i / side)) * width + left + (i % side));
        const [to, from] = [square(toTop!, toLeft!), square(fromTop!, fromLeft!)];
        const lengthOf = (indices: Iterable<number>) => l2(Array.from(indices, (i) => before[i]!));
        const budget = Math.sqrt(spare + lengthOf(new Set([...to, ...from])) ** 2);
        const mixed = to.map((i, n) => signs[c]! * shape[n]! + before[i]! / lengthOf(to));
        for (const i of from) delta[i] = 0;
        for (const [n, i] of to.entries()) delta[i] = (mixed[n]! * budget) / l2(mixed);
      }
      const length = l2(delta);
      for (const [i, v] of points[k]!.entries())
        expect(v).toBeCloseTo(Math.min(1, Math.max(0, centre[i]! + (delta[i]! * eps) / length)), 8);
    }
    expect([...sides].every((side) => side % 2 === 0 || side === 9)).toBe(true);
    expect(sides.size).toBeGreaterThan(1);
  });

  test('an image of the size of a pixel has nothing to move', async () => {
    const { points, centre, eps } = await run('l2', [1, 1, 1], 3);
    for (const point of points) expect(Math.abs(point[0]! - centre[0]!)).toBeCloseTo(eps, 9);
  });
});

describe('both', () => {
  test('a change is kept if it makes the margin smaller, and only then', async () => {
    const shape: Shape = [1, 8, 8];
    // The third point is better than the first; the others are worse, or as good.
    const margins = [3, 3, 2, 2, 4, 2, 2];
    const { points, losses } = await run('linf', shape, 7, { marginOf: (n) => margins[n]!, seed: 2 });
    expect(losses).toEqual(margins.map((margin) => -margin));
    const differs = (a: number, b: number) => boxes(points[a]!, points[b]!, shape)[0]!;
    const isSquareOf = (from: number, to: number, k: number) => {
      const side = Math.max(1, Math.round(Math.sqrt(shareAt(k - 1, 7) * 64)));
      const { count, box } = differs(from, to);
      const [top, left, bottom, right] = box as [number, number, number, number];
      return count === 0 || Math.max(bottom - top, right - left) < side;
    };
    expect(isSquareOf(0, 1, 1)).toBe(true);
    expect(isSquareOf(0, 2, 2)).toBe(true);
    for (const k of [3, 4, 5, 6]) expect(isSquareOf(2, k, k)).toBe(true);
  });

  test.each(['linf', 'l2'] as const)('it ends when the image is broken (%s)', async (norm) => {
    for (const breaksAt of [1, 3]) {
      const { points } = await run(norm, [1, 6, 6], 9, { breaksAt });
      expect(points).toHaveLength(breaksAt);
    }
  });

  test('its steps are queries', async () => {
    expect(squareEntry).toMatchObject({ usesGradients: false, defaults: { steps: 5000, restarts: 1 } });
  });
});

describe('a bump', () => {
  /** A pyramid of steps 1 / k^2 around the middle of its rows. */
  const pyramid = (rows: number, side: number) => {
    const [row, column] = [Math.floor(rows / 2), Math.floor(side / 2)];
    const most = Math.max(row, column);
    const values = Array.from({ length: rows * side }, (_, i) => {
      const far = Math.max(Math.abs(Math.floor(i / side) - row), Math.abs((i % side) - column));
      let sum = 0;
      for (let k = far; k <= most; k++) sum += 1 / (k + 1) ** 2;
      return sum;
    });
    const length = l2(values);
    return values.map((value) => value / length);
  };
  const turnedBy = (uniform: number, side: number) =>
    bump(side, { uniform: () => uniform } as ReturnType<typeof randomOf>);

  test.each([2, 3, 4, 5, 8])(
    'two pyramids of opposite sign, one above the other, of length 1 (side %d)',
    (side) => {
      const half = Math.floor(side / 2);
      const expected = [...pyramid(half, side), ...pyramid(side - half, side).map((value) => -value)];
      const found = turnedBy(0.25, side);
      expect(l2(found)).toBeCloseTo(1, 12);
      for (const [i, value] of found.entries()) expect(value).toBeCloseTo(expected[i]! / Math.SQRT2, 12);
    },
  );

  test('or next to each other', () => {
    const [upright, turned] = [turnedBy(0.25, 4), turnedBy(0.75, 4)];
    for (let i = 0; i < 4; i++)
      for (let j = 0; j < 4; j++) expect(turned[4 * i + j]).toBe(upright[4 * j + i]);
    expect(turnedBy(0.5, 4)).toEqual(upright);
  });

  test('of one pixel it is that pixel', () => {
    expect([...turnedBy(0.25, 1)]).toEqual([-1]);
  });
});
