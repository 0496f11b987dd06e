// Square attack (Andriushchenko et al., ECCV 2020): random search that changes squares of pixels and needs no
// gradient. A change is kept if it makes the margin z_y - max z_j smaller.

import { l2 } from '../norms.ts';
import type { OptionValues } from '../option.ts';
import type { Attack, AttackTrial } from './attack.ts';
import type { AttackEntry } from './attack-entry.ts';
import { project } from './ball.ts';
import { marginOf } from './losses.ts';
import type { Random } from './random.ts';

/** Share of an image's pixels that the first square covers. */
const FIRST_SHARE = 0.8;

/** The queries, out of 10,000, after which the share of pixels is halved. */
const HALVINGS = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];

/** Returns the share of pixels that the square of query `k` of `queries` covers. */
export function shareAt(k: number, queries: number): number {
  const scaled = Math.floor((k / queries) * 10_000);
  return FIRST_SHARE / 2 ** HALVINGS.filter((mark) => scaled > mark).length;
}

export interface SquareOptions {
  /** Queries of a run, including the first one. */
  readonly queries: number;
}

/** Returns the square attack. */
export const square =
  ({ queries }: SquareOptions): Attack =>
  async (trial: AttackTrial) => {
    const { asked, centre, label, ball, keep } = trial;
    const { first, propose } = ball.norm === 'linf' ? inLinf(trial) : inL2(trial);
    let x = project(ball, first(), centre);
    let { mean, judged } = await asked.logits(x);
    let margin = marginOf(mean, label);
    if (await keep(x, -margin, judged)) return;
    for (let k = 1; k < queries; k++) {
      const next = project(ball, propose(x, shareAt(k - 1, queries)), centre);
      ({ mean, judged } = await asked.logits(next));
      const now = marginOf(mean, label);
      if (now < margin) [x, margin] = [next, now];
      if (await keep(next, -now, judged)) return;
    }
  };

/** The first point and the changes of x in a norm; both are then projected into the ball. */
interface Search {
  readonly first: () => Float64Array;
  readonly propose: (x: Float64Array, share: number) => Float64Array;
}

/** Returns the side of a square that covers a share of the pixels, at least `least` and within the image. */
const sideOf = (share: number, height: number, width: number, least: number): number =>
  Math.min(height, width, Math.max(least, Math.round(Math.sqrt(share * height * width))));

function inLinf({ asked, centre, ball, random }: AttackTrial): Search {
  const [channels, height, width] = asked.shape;
  const { eps } = ball;
  return {
    first() {
      const x = centre.slice();
      for (let c = 0; c < channels; c++)
        for (let column = 0; column < width; column++) {
          const change = eps * random.sign();
          for (let row = 0; row < height; row++) x[(c * height + row) * width + column]! += change;
        }
      return x;
    },
    propose(from, share) {
      const x = from.slice();
      const side = sideOf(share, height, width, 1);
      const top = random.below(height - side + 1);
      const left = random.below(width - side + 1);
      for (let c = 0; c < channels; c++) {
        const change = eps * random.sign();
        for (let row = top; row < top + side; row++)
          for (let column = left; column < left + side; column++) {
            const i = (c * height + row) * width + column;
            x[i] = centre[i]! + change;
          }
      }
      return x;
    },
  };
}

/**
 * Returns the values of a square of the l2 attack, [side, side] of length 1: two pyramids of opposite sign,
 * next to or above each other, whose steps are 1 / k^2.
 */
export function bump(side: number, random: Random): Float64Array {
  const half = Math.floor(side / 2);
  const values = new Float64Array(side * side);
  const pyramid = (from: number, rows: number, sign: number) => {
    const [row, column] = [Math.floor(rows / 2), Math.floor(side / 2)];
    const steps = Math.max(row, column) + 1;
    const part = new Float64Array(rows * side);
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < side; j++)
        for (let k = Math.max(Math.abs(i - row), Math.abs(j - column)); k < steps; k++)
          part[i * side + j]! += 1 / (k + 1) ** 2;
    const length = l2(part);
    for (const [i, value] of part.entries()) values[from * side + i] = (sign * value) / length;
  };
  if (half > 0) pyramid(0, half, 1);
  pyramid(half, side - half, -1);
  const length = l2(values);
  const turned = random.uniform() > 0.5;
  return values.map((_, i) => values[turned ? (i % side) * side + Math.floor(i / side) : i]! / length);
}

function inL2({ asked, centre, ball, random }: AttackTrial): Search {
  const [channels, height, width] = asked.shape;
  const { eps } = ball;
  /** Returns the indices of a square of one channel, row by row. */
  const window = (c: number, top: number, left: number, side: number): number[] =>
    Array.from(
      { length: side * side },
      (_, i) => (c * height + top + Math.floor(i / side)) * width + left + (i % side),
    );
  const place = (side: number) => [random.below(height - side + 1), random.below(width - side + 1)] as const;
  const scaled = (delta: Float64Array): Float64Array => {
    const length = l2(delta);
    return centre.map((v, i) => (length > 0 ? v + (delta[i]! * eps) / length : v));
  };
  return {
    first() {
      const delta = new Float64Array(centre.length);
      const side = Math.max(1, Math.floor(Math.min(height, width) / 5));
      const margin = (size: number) => Math.floor((size % side) / 2);
      for (let top = margin(height); top + side <= height; top += side)
        for (let left = margin(width); left + side <= width; left += side) {
          const shape = bump(side, random);
          for (let c = 0; c < channels; c++) {
            const sign = random.sign();
            for (const [k, i] of window(c, top, left, side).entries()) delta[i] = sign * shape[k]!;
          }
        }
      return scaled(delta);
    },
    propose(x, share) {
      const delta = x.map((v, i) => v - centre[i]!);
      const even = (side: number) => Math.min(height, width, side + (side % 2));
      const side = even(sideOf(share, height, width, 3));
      const [to, from] = [place(side), place(side)];
      const spare = Math.max(0, eps * eps - l2(delta) ** 2) / channels;
      const shape = bump(side, random);
      for (let c = 0; c < channels; c++) {
        const into = window(c, ...to, side);
        const out = window(c, ...from, side);
        const mass = (indices: Iterable<number>) => {
          let sum = 0;
          for (const i of indices) sum += delta[i]! ** 2;
          return sum;
        };
        const budget = Math.sqrt(spare + mass(new Set([...into, ...out])));
        const before = Math.sqrt(mass(into)) + 1e-12;
        const sign = random.sign();
        const mixed = Float64Array.from(into, (i, k) => sign * shape[k]! + delta[i]! / before);
        const length = l2(mixed) + 1e-12;
        for (const i of out) delta[i] = 0;
        for (const [k, i] of into.entries()) delta[i] = (mixed[k]! * budget) / length;
      }
      return scaled(delta);
    },
  };
}

export const squareEntry: AttackEntry<OptionValues, 'square'> = {
  name: 'square',
  summary: 'random squares, which need no gradient; its steps are queries',
  options: {},
  defaults: { steps: 5000, restarts: 1 },
  leastClasses: 2,
  usesGradients: false,
  leastSharedSteps: 200,
  make: ({ steps }) => square({ queries: steps }),
};
