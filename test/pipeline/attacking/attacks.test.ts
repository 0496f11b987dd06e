// Tests attacks on classifiers whose best attack is known in closed form, the constraints that all attacks keep, and
// expectation over draws.

import { describe, expect, test } from 'vitest';
import { type AttackOptions, attackImage } from '../../../src/pipeline/attacking/attack.ts';
import { ATTACKS, type AttackName, attackOf } from '../../../src/pipeline/attacking/attacks.ts';
import {
  argmax,
  crossEntropy,
  dlr,
  type LossOf,
  marginOf,
  targetedCrossEntropy,
  targetedDlr,
} from '../../../src/pipeline/attacking/losses.ts';
import { quantise } from '../../../src/pipeline/attacking/quantise.ts';
import { randomOf } from '../../../src/pipeline/attacking/random.ts';
import { shareAt } from '../../../src/pipeline/attacking/square.ts';
import { distance, type Norm } from '../../../src/pipeline/norms.ts';
import { linearClassifier, weightAt } from './fake-classifiers.ts';

const SIDE = 6;
const N = SIDE * SIDE;

const imageOf = (key: string, low = 0.3, high = 0.7): Float64Array => {
  const random = randomOf(9, key, 'image');
  return Float64Array.from(
    { length: N },
    () => Math.round((low + (high - low) * random.uniform()) * 255) / 255,
  );
};

const optionsOf = (
  attack: AttackName,
  norm: Norm,
  eps: number,
  more: Partial<AttackOptions> = {},
): AttackOptions => ({
  attack: attackOf(attack, { steps: attack === 'square' ? 1500 : 60 }, 4),
  name: attack,
  restarts: attack.endsWith('-t') ? 3 : 1,
  seed: 0,
  norm,
  eps,
  eot: 1,
  randomness: 'known',
  ...more,
});

const dualOf = (norm: Norm, label: number, t: number): number => {
  const d = Array.from({ length: N }, (_, i) => weightAt(t, i) - weightAt(label, i));
  return norm === 'linf' ? d.reduce((sum, v) => sum + Math.abs(v), 0) : Math.hypot(...d);
};

describe('a linear classifier of two classes: the best attack is the dual norm', () => {
  const net = linearClassifier(2);
  const least = async (x: Float64Array, label: number, norm: Norm, eps: number) =>
    marginOf(await net.logits(x, 0), label) - eps * dualOf(norm, label, 1 - label);

  const cases = (['linf', 'l2'] as const).flatMap((norm) =>
    (['pgd', 'apgd-ce', 'apgd-ce-t'] as const).map((attack) => ({ attack, norm })),
  );
  test.each(cases)('$attack finds it in $norm', async ({ attack, norm }) => {
    for (const key of ['a', 'b', 'c']) {
      const x = imageOf(key);
      const label = argmax(await net.logits(x, 0));
      const eps = norm === 'linf' ? 0.1 : 0.5;
      const { x: found, broken } = await attackImage(net, { x, label, key }, optionsOf(attack, norm, eps));
      const reached = marginOf(await net.logits(found, 0), label) - (await least(x, label, norm, eps));
      expect(reached).toBeGreaterThanOrEqual(-1e-9);
      const slack = norm === 'linf' ? 1e-9 : attack === 'pgd' ? 0.02 * eps * dualOf(norm, 0, 1) : 1e-4;
      expect(reached).toBeLessThanOrEqual(slack);
      expect(broken).toBe(false);
    }
  });

  test.each(['linf', 'l2'] as const)('square comes close to it in %s without a gradient', async (norm) => {
    const { gradient: _, ...blind } = net;
    const x = imageOf('s');
    const start = await net.logits(x, 0);
    const label = argmax(start);
    const eps = norm === 'linf' ? 0.1 : 0.5;
    const { x: found, queries } = await attackImage(
      blind,
      { x, label, key: 's' },
      optionsOf('square', norm, eps),
    );
    const way = marginOf(start, label) - marginOf(await net.logits(found, 0), label);
    const whole = eps * dualOf(norm, label, 1 - label);
    expect(way / whole).toBeGreaterThan(norm === 'linf' ? 0.97 : 0.55);
    expect(way / whole).toBeLessThanOrEqual(1 + 1e-9);
    expect(queries).toEqual({ logits: 1501, gradients: 0 });
  });

  test('is limited by the range of pixels: every pixel moves as far as it can', async () => {
    const x = imageOf('edge', 0, 0.05);
    const label = argmax(await net.logits(x, 0));
    const { x: found } = await attackImage(net, { x, label, key: 'e' }, optionsOf('apgd-ce', 'linf', 0.1));
    for (const [i, v] of found.entries()) {
      const up = weightAt(1 - label, i) > weightAt(label, i);
      expect(v).toBeCloseTo(up ? x[i]! + 0.1 : Math.max(0, x[i]! - 0.1), 9);
    }
  });
});

describe('a linear classifier of four classes: images are misclassified only if the boundary is near enough', () => {
  const cases = (['linf', 'l2'] as const).flatMap((norm) => ATTACKS.map((attack) => ({ attack, norm })));
  test.each(cases)('$attack in $norm', async ({ attack, norm }) => {
    const net = linearClassifier(4);
    for (const key of ['a', 'b']) {
      const x = imageOf(key);
      const logits = await net.logits(x, 0);
      const label = argmax(logits);
      const radii = [0, 1, 2, 3]
        .filter((t) => t !== label)
        .map((t) => (logits[label]! - logits[t]!) / dualOf(norm, label, t));
      const radius = Math.min(...radii);
      const verify = async (point: Float64Array) => argmax(await net.logits(point, 0)) !== label;
      const at = async (eps: number) =>
        (await attackImage(net, { x, label, key }, optionsOf(attack, norm, eps, { verify }))).broken;
      expect(await at(0.98 * radius)).toBe(false);
      // Attacks on the nearest boundary need little more than its distance; cross-entropy may choose another class.
      const reach = attack === 'apgd-dlr' || attack === 'apgd-t' ? 1.1 : 2.5;
      expect(await at(reach * radius)).toBe(true);
    }
  });
});

describe('every attack', () => {
  const cases = (['linf', 'l2'] as const).flatMap((norm) => ATTACKS.map((attack) => ({ attack, norm })));
  test.each(cases)(
    '$attack in $norm: keeps the ball and [0, 1], and repeats the same bytes',
    async ({ attack, norm }) => {
      const net = linearClassifier();
      const eps = norm === 'linf' ? 0.12 : 0.9;
      const more = { attack: attackOf(attack, { steps: 25 }, 4) };
      const run = (key: string) => {
        const x = imageOf('range', 0, 1);
        return attackImage(net, { x, label: 1, key }, optionsOf(attack, norm, eps, more));
      };
      const centre = imageOf('range', 0, 1);
      const [{ x }, again, other] = await Promise.all([run('k'), run('k'), run('other')]);
      expect(distance(norm, x, centre)).toBeLessThanOrEqual(eps + 1e-12);
      expect(x.every((v) => v >= 0 && v <= 1)).toBe(true);
      expect(again.x).toEqual(x);
      expect(other.queries).toEqual(again.queries);
      const bytes = quantise(x, centre, { norm, eps });
      expect(distance(norm, bytes, centre)).toBeLessThanOrEqual(eps + 1e-9);
      expect(bytes.every((v) => Math.abs(v * 255 - Math.round(v * 255)) < 1e-9)).toBe(true);
    },
  );

  test('ends as soon as the image is misclassified, and reports it', async () => {
    const net = linearClassifier();
    const x = imageOf('a');
    const label = argmax(await net.logits(x, 0));
    const verify = async (point: Float64Array) => argmax(await net.logits(point, 0)) !== label;
    const {
      x: found,
      broken,
      queries,
    } = await attackImage(net, { x, label, key: 'a' }, optionsOf('apgd-ce', 'linf', 0.5, { verify }));
    expect(broken).toBe(true);
    expect(await verify(found)).toBe(true);
    expect(queries.gradients).toBeLessThan(61);
  });

  test("square's share of pixels follows the published schedule", () => {
    const at = [0, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 6001, 8001];
    const halvings = [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9];
    expect(at.map((k) => shareAt(k, 10_000))).toEqual(halvings.map((h) => 0.8 / 2 ** h));
    expect(shareAt(6, 5000)).toBe(0.4);
  });
});

describe('expectation over draws', () => {
  const x = imageOf('eot');
  const attack = async (randomness: 'known' | 'fresh', eot: number) => {
    const net = linearClassifier(4, SIDE, 1);
    const more = { randomness, eot, attack: attackOf('pgd', { steps: 3 }, 4) } as const;
    const { queries } = await attackImage(
      net,
      { x, label: 0, key: 'e' },
      optionsOf('pgd', 'linf', 0.1, more),
    );
    return { draws: net.draws, queries };
  };

  test('known: the same draws in every step, including the one of the classifier', async () => {
    const { draws, queries } = await attack('known', 3);
    expect(draws).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    expect(queries).toEqual({ logits: 3, gradients: 12 });
  });

  test('fresh: different draws in every step, and never the one of the classifier', async () => {
    const { draws } = await attack('fresh', 2);
    expect(draws).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });
});

describe('losses', () => {
  const losses: readonly (readonly [string, LossOf])[] = [
    ['cross-entropy', crossEntropy(1)],
    ['targeted cross-entropy', targetedCrossEntropy(2)],
    ['dlr', dlr(1)],
    ['targeted dlr', targetedDlr(1, 4)],
  ];
  test.each(losses)('%s: the gradient equals differences of the value', (_, loss) => {
    for (const logits of [
      [0.3, 1.2, -0.5, 0.9, 0.1],
      [2, -1, 0.5, 1, 0],
    ].map((row) => Float64Array.from(row))) {
      const { gradient } = loss(logits);
      for (let i = 0; i < logits.length; i++) {
        const at = (h: number) => loss(logits.map((z, j) => (j === i ? z + h : z))).value;
        expect(gradient[i]!).toBeCloseTo((at(1e-5) - at(-1e-5)) / 2e-5, 7);
      }
    }
  });

  test('a classifier with probabilities of 0 and 1 still has a gradient', () => {
    const { value, gradient } = crossEntropy(0)(Float64Array.from([100, 0, 1]));
    expect(value).toBeCloseTo(Math.exp(-99) + Math.exp(-100), 50);
    expect(value).toBeGreaterThan(0);
    expect(gradient[2]! / gradient[1]!).toBeCloseTo(Math.E, 9);
    expect(gradient[0]! + gradient[1]! + gradient[2]!).toBeCloseTo(0, 60);
  });
});
