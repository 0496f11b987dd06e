// Tests that APGD visits the same points as in PyTorch (test/golden/apgd-trace.py), step by step. The final counts alone
// would not reveal an APGD without momentum, or one that never returns to its best point.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { apgd } from '../../../src/pipeline/attacking/apgd.ts';
import { attackImage } from '../../../src/pipeline/attacking/attack.ts';
import { crossEntropy } from '../../../src/pipeline/attacking/losses.ts';

type Matrix = readonly (readonly number[])[];

const GOLDEN: {
  readonly steps: number;
  readonly net: { readonly w1: Matrix; readonly b1: readonly number[]; readonly w2: Matrix };
  readonly cases: readonly {
    readonly norm: 'linf' | 'l2';
    readonly eps: number;
    readonly label: number;
    readonly x: readonly number[];
    readonly noise: readonly number[];
    readonly trace: readonly { readonly x: readonly number[]; readonly loss: number }[];
  }[];
} = JSON.parse(readFileSync(join(import.meta.dirname, '../../golden/apgd-trace.json'), 'utf8'));

const { w1, b1, w2 } = GOLDEN.net;
const dot = (a: readonly number[], b: ArrayLike<number>) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);

/** The network of the golden file: logits = W2 tanh(W1 x + b1). */
const net = {
  classes: w2.length,
  shape: [1, 3, 3] as const,
  period: 1,
  logits: async (x: Float64Array) => Float64Array.from(w2, (row) => dot(row, hiddenOf(x))),
  async gradient(x: Float64Array, _: number, cotangent: (logits: Float64Array) => Float64Array) {
    const hidden = hiddenOf(x);
    const logits = Float64Array.from(w2, (row) => dot(row, hidden));
    const by = cotangent(logits);
    const inner = hidden.map((h, j) => (1 - h * h) * w2.reduce((sum, row, c) => sum + row[j]! * by[c]!, 0));
    return { logits, gradient: x.map((_v, i) => w1.reduce((sum, row, j) => sum + row[i]! * inner[j]!, 0)) };
  },
};

function hiddenOf(x: Float64Array): number[] {
  return w1.map((row, j) => Math.tanh(dot(row, x) + b1[j]!));
}

/** Random numbers with which APGD starts at the point at which PyTorch started. */
function startingFrom(noise: readonly number[]) {
  let next = 0;
  return {
    uniform: () => (noise[next++]! + 1) / 2,
    normal: () => noise[next++]!,
    below: () => 0,
    sign: () => 1,
  };
}

describe('every point of a run equals that of PyTorch', () => {
  test.each(GOLDEN.cases)('$norm, eps $eps', async ({ norm, eps, label, x, noise, trace }) => {
    const points: { x: Float64Array; loss: number }[] = [];
    const found = await attackImage(
      net,
      { x: Float64Array.from(x), label, key: 'golden' },
      {
        attack: (run) =>
          apgd({ steps: GOLDEN.steps, loss: () => crossEntropy(label) })({
            ...run,
            random: startingFrom(noise),
            keep(point, loss, logits) {
              points.push({ x: point, loss });
              return run.keep(point, loss, logits);
            },
          }),
        name: 'apgd-ce',
        restarts: 1,
        seed: 0,
        norm,
        eps,
        eot: 1,
        randomness: 'known',
      },
    );
    expect(points).toHaveLength(GOLDEN.steps + 1);
    for (const [k, expected] of trace.entries()) {
      expect(points[k]!.loss).toBeCloseTo(expected.loss, 9);
      for (const [i, value] of expected.x.entries()) expect(points[k]!.x[i]).toBeCloseTo(value, 9);
    }
    // The result is the point with the largest loss.
    const best = points.reduce((one, other) => (other.loss > one.loss ? other : one));
    expect(found.x).toEqual(best.x);
  });
});
