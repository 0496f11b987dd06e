// The frame of all attacks, with attacks that visit the points that a test gives them: where runs start, which point
// counts, when an image is broken, and how the result is judged.

import { describe, expect, test } from 'vitest';
import { UsageError } from '../../../src/errors.ts';
import { type ApgdOptions, apgd, checkpoints } from '../../../src/pipeline/attacking/apgd.ts';
import {
  type Attack,
  type AttackOptions,
  type AttackTrial,
  attackImage,
  startIn,
} from '../../../src/pipeline/attacking/attack.ts';
import {
  ATTACK_ENTRIES,
  ATTACKS,
  type AttackName,
  attackOf,
} from '../../../src/pipeline/attacking/attacks.ts';
import { attackAndJudge, type Campaign, judged } from '../../../src/pipeline/attacking/campaign.ts';
import type { Defended } from '../../../src/pipeline/attacking/defended.ts';
import {
  crossEntropy,
  dlr,
  targetedCrossEntropy,
  targetedDlr,
  targetOf,
} from '../../../src/pipeline/attacking/losses.ts';
import { pgd } from '../../../src/pipeline/attacking/pgd.ts';
import { randomOf } from '../../../src/pipeline/attacking/random.ts';
import { square } from '../../../src/pipeline/attacking/square.ts';
import { l2 } from '../../../src/pipeline/norms.ts';
import { linearClassifier } from './fake-classifiers.ts';

/** Two classes by the first pixel: class 1 above `border`. Keeps the points that it is asked for. */
function threshold(
  border = 0.5,
  period = 1,
): Defended & { readonly asked: number[]; readonly draws: number[] } {
  const asked: number[] = [];
  const draws: number[] = [];
  return {
    classes: 2,
    shape: [1, 1, 1],
    period,
    asked,
    draws,
    async logits(x, draw) {
      asked.push(x[0]!);
      draws.push(draw);
      return Float64Array.of(border - x[0]!, x[0]! - border);
    },
    async gradient(x, _, cotangent) {
      const logits = Float64Array.of(border - x[0]!, x[0]! - border);
      const by = cotangent(logits);
      return { logits, gradient: x.map((__, i) => (i === 0 ? by[1]! - by[0]! : 0)) };
    },
  };
}

const IMAGE = { x: Float64Array.of(0.25), label: 0, key: 'image' };
const OPTIONS = {
  name: 'fake',
  restarts: 1,
  seed: 3,
  norm: 'linf',
  eps: 0.5,
  eot: 1,
  randomness: 'known',
} as const;

/** Visits points, each with its loss; ends if the image is broken. */
const visiting =
  (...runs: readonly (readonly (readonly [x: number, loss: number])[])[]): Attack =>
  async ({ asked, keep, restart }) => {
    for (const [value, loss] of runs[restart]!) {
      const x = Float64Array.of(value);
      if (await keep(x, loss, (await asked.logits(x)).judged)) return;
    }
  };

const run = (attack: Attack, options: Partial<AttackOptions> = {}, image = IMAGE, net = threshold()) =>
  attackImage(net, image, { ...OPTIONS, attack, ...options });

describe('which point counts', () => {
  test('that of the largest loss in a run, the first of equals', async () => {
    const { x, broken } = await run(
      visiting(
        [
          [0.3, 1],
          [0.35, 5],
          [0.4, 2],
          [0.375, 5],
        ].map(([a, b]) => [a!, b!]),
      ),
    );
    expect([x[0], broken]).toEqual([0.35, false]);
  });

  test('that of a later run if its margin is at most as large, whatever its loss', async () => {
    const runs = (...points: [number, number][]) =>
      run(visiting(...points.map((point) => [point])), { restarts: points.length });
    expect((await runs([0.4, 1], [0.45, 0.5])).x[0]).toBe(0.45);
    expect((await runs([0.45, 1], [0.4, 2])).x[0]).toBe(0.45);
    expect((await runs([0.3, 1], [0.2, 9], [0.4, 0])).x[0]).toBe(0.4);
  });

  test('the image itself if every point has a larger margin, or there is none', async () => {
    expect((await run(visiting([[0.1, 7]]))).x).toBe(IMAGE.x);
    expect((await run(visiting([]))).x).toBe(IMAGE.x);
    const equal = await run(visiting([[0.25, 7]]));
    expect(equal.x).not.toBe(IMAGE.x);
  });
});

describe('broken', () => {
  /** Counts what is verified; a point is broken above 0.75. */
  const verifier = () => {
    const points: number[] = [];
    const verify = async (x: Float64Array) => {
      points.push(x[0]!);
      return x[0]! > 0.75;
    };
    return { points, verify };
  };

  test('only what the attack classifies wrong is verified, and the first broken point ends the attack', async () => {
    const { points, verify } = verifier();
    const net = threshold();
    const attack = visiting(
      [
        [0.4, 1],
        [0.6, 9],
        [0.8, 2],
        [0.9, 20],
      ],
      [[1, 1]],
    );
    const found = await run(attack, { verify, restarts: 2 }, IMAGE, net);
    expect(found).toMatchObject({ broken: true, queries: { logits: 4, gradients: 0 } });
    expect(found.x[0]).toBe(0.8);
    expect(points).toEqual([0.6, 0.8]);
    expect(net.asked).toEqual([0.25, 0.4, 0.6, 0.8]);
  });

  test('a wrong point that is not verified to be broken does not end it', async () => {
    const { points, verify } = verifier();
    const found = await run(
      visiting([
        [0.6, 9],
        [0.7, 2],
      ]),
      { verify },
    );
    expect([found.broken, found.x[0], points]).toEqual([false, 0.6, [0.6, 0.7]]);
  });

  test('an image that is broken without an attack is not attacked', async () => {
    const { verify } = verifier();
    const image = { ...IMAGE, x: Float64Array.of(0.875) };
    const never: Attack = async () => {
      throw new Error('attacked');
    };
    const found = await run(never, { verify }, image);
    expect(found).toMatchObject({ broken: true, queries: { logits: 1, gradients: 0 } });
    expect(found.x).toBe(image.x);
  });

  test('without verification no attack ends early', async () => {
    const found = await run(
      visiting([
        [0.9, 1],
        [0.95, 0.5],
      ]),
    );
    expect(found).toMatchObject({ broken: false, queries: { logits: 3 } });
    expect(found.x[0]).toBe(0.9);
  });
});

test('each run has the image, the ball, its number, the clean logits, and random numbers of its own', async () => {
  const trials: AttackTrial[] = [];
  await run(async (trial) => void trials.push(trial), { restarts: 3, norm: 'l2' });
  expect(trials.map(({ restart }) => restart)).toEqual([0, 1, 2]);
  for (const { centre, label, ball, clean } of trials) {
    expect([centre, label, ball]).toEqual([IMAGE.x, 0, { norm: 'l2', eps: 0.5 }]);
    expect([...clean]).toEqual([0.25, -0.25]);
  }
  const firsts = trials.map(({ random }) => random.uniform());
  expect(firsts).toEqual([0, 1, 2].map((k) => randomOf(3, 'image', `fake ${k}`).uniform()));
});

describe('the start', () => {
  const centre = Float64Array.from({ length: 400 }, () => 0.5);

  test('linf: uniform in the ball', () => {
    const offsets = startIn({ norm: 'linf', eps: 0.25 }, centre, randomOf(1, 'k', 'p')).map(
      (v) => (v - 0.5) / 0.25,
    );
    const random = randomOf(1, 'k', 'p');
    for (const offset of offsets) expect(offset).toBeCloseTo(2 * random.uniform() - 1, 12);
  });

  test('l2: on the surface, in the direction of normal numbers', () => {
    const offsets = startIn({ norm: 'l2', eps: 0.25 }, centre, randomOf(1, 'k', 'p')).map((v) => v - 0.5);
    expect(l2(offsets)).toBeCloseTo(0.25, 12);
    const random = randomOf(1, 'k', 'p');
    const normals = offsets.map(() => random.normal());
    for (const [i, offset] of offsets.entries())
      expect(offset).toBeCloseTo((0.25 * normals[i]!) / l2(normals), 12);
  });

  test('l2: on the surface also if there are few pixels', () => {
    for (const length of [1, 2])
      for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
        const start = startIn({ norm: 'l2', eps: 0.25 }, centre.slice(0, length), randomOf(1, key, 'p'));
        expect(l2(start.map((v) => v - 0.5))).toBeCloseTo(0.25, 12);
      }
  });

  test('within [0, 1]', () => {
    for (const norm of ['linf', 'l2'] as const) {
      const edge = Float64Array.from({ length: 50 }, (_, i) => i % 2);
      const start = startIn({ norm, eps: 0.5 }, edge, randomOf(2, 'k', 'p'));
      expect(start.every((v) => v >= 0 && v <= 1)).toBe(true);
      expect(start.some((v) => v > 0 && v < 1)).toBe(true);
    }
  });
});

describe('PGD', () => {
  /** Records the points of a run that starts at a known uniform number. */
  const points = async (
    options: { steps: number; stepSize?: number },
    breaksAt = Number.POSITIVE_INFINITY,
  ) => {
    const visited: number[] = [];
    await run(async (trial) => {
      const random = { ...trial.random, uniform: () => 0.5 };
      await pgd(options)({
        ...trial,
        random,
        keep: async (x) => visited.push(x[0]!) === breaksAt,
      });
    });
    return visited;
  };

  test('takes steps of 2.5 eps / steps up to the end of the ball, and a gradient at every point', async () => {
    const found = await points({ steps: 5 });
    for (const [k, expected] of [0.25, 0.5, 0.75, 0.75, 0.75, 0.75].entries())
      expect(found[k]).toBeCloseTo(expected, 12);
    expect(found).toHaveLength(6);
  });

  test('takes steps of a given size', async () => {
    expect(await points({ steps: 2, stepSize: 0.125 })).toEqual([0.25, 0.375, 0.5]);
  });

  test('ends if the image is broken', async () => {
    expect(await points({ steps: 5, stepSize: 0.125 }, 2)).toEqual([0.25, 0.375]);
  });
});

describe('a campaign', () => {
  const campaign = (judge: Defended, more: Partial<Campaign> = {}): Campaign => ({
    attacked: judge,
    judge,
    seed: 0,
    norm: 'linf',
    eps: 0.5,
    eot: 1,
    randomness: 'known',
    ...more,
  });
  const plan = { attack: 'pgd', steps: 8, restarts: 1 } as const;

  test('judges by draw 0: the prediction and the margin', async () => {
    const net = threshold();
    expect(await judged(net, Float64Array.of(0.75), 0)).toEqual({ prediction: 1, margin: -0.5 });
    expect(await judged(net, Float64Array.of(0.25), 0)).toEqual({ prediction: 0, margin: 0.5 });
    expect(net.draws).toEqual([0, 0]);
  });

  test('an image within reach is broken, as it was found and as 8 bits, at its distances', async () => {
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
      const net = threshold();
      const centre = Float64Array.of(51 / 255, 102 / 255);
      const found = await attackAndJudge(campaign(net), plan, { x: centre, label: 0, key });
      expect(found).toMatchObject({ prediction: 1, broken: true, quantised: { prediction: 1 } });
      expect(found.margin).toBeLessThan(0);
      const bytes = found.x.map((v) => v * 255);
      for (const [i, byte] of bytes.entries()) expect(byte).toBeCloseTo(Math.round(found.found[i]! * 255), 9);
      const far = found.x.map((v, i) => Math.abs(v - centre[i]!));
      expect(found.linf).toBeCloseTo(Math.max(...far), 12);
      expect(found.l2).toBeCloseTo(Math.hypot(...far), 12);
      expect(found.queries.gradients).toBeLessThan(9);
      // The attack's own logits judge, so the classifier is asked for logits of the image, and of the result twice.
      expect(net.asked).toHaveLength(3);
    }
  });

  test('an image out of reach is not', async () => {
    const image = { ...IMAGE, x: Float64Array.of(51 / 255) };
    const found = await attackAndJudge(campaign(threshold(), { eps: 0.125 }), plan, image);
    expect(found).toMatchObject({ prediction: 0, broken: false, quantised: { prediction: 0 } });
    expect(found.queries).toEqual({ logits: 1, gradients: 9 });
  });

  test('8 bits may save an image that was broken as it was found', async () => {
    const options = campaign(threshold(110.5 / 255), { norm: 'l2', eps: 10.6 / 255 });
    const found = await attackAndJudge(
      options,
      { ...plan, steps: 40 },
      { ...IMAGE, x: Float64Array.of(100 / 255) },
    );
    expect(found).toMatchObject({ prediction: 1, quantised: { prediction: 0 }, broken: true });
    expect(found.x[0]! * 255).toBeCloseTo(110, 9);
  });

  test('8 bits may break an image that was not', async () => {
    const x = Float64Array.of(100 / 255);
    // An attack without a direction stays where it starts; it starts just below a byte for one of the keys.
    const flat: Defended = {
      ...threshold(1),
      gradient: async (at) => ({ logits: Float64Array.of(1, 0), gradient: at.map(() => 0) }),
    };
    const startOf = (key: string) =>
      startIn({ norm: 'linf', eps: 0.25 }, x, randomOf(0, key, 'pgd 0'))[0]! * 255;
    const key = ['a', 'b', 'c', 'd', 'e', 'f'].find((one) => startOf(one) % 1 > 0.6)!;
    const border = (startOf(key) + Math.round(startOf(key))) / 2 / 255;
    const options = campaign(threshold(border), { attacked: flat, transfer: true, eps: 0.25 });
    expect(await attackAndJudge(options, plan, { x, label: 0, key })).toMatchObject({
      prediction: 0,
      quantised: { prediction: 1 },
      broken: true,
    });
  });

  test('a tie of the judge does not end an attack', async () => {
    const judge: Defended = { ...threshold(), logits: async () => Float64Array.of(0, 0) };
    const options = campaign(judge, { attacked: threshold(2) });
    const { queries } = await attackAndJudge(options, plan, { ...IMAGE, label: 1 });
    expect(queries).toEqual({ logits: 1, gradients: 9 });
  });

  test('a judge of its own decides about every point that the attacked classifier gets wrong', async () => {
    const judge = threshold(0.7);
    const found = await attackAndJudge(
      campaign(judge, { attacked: threshold(0.5) }),
      { ...plan, stepSize: 0.125 },
      IMAGE,
    );
    expect(found.broken).toBe(true);
    expect(found.found[0]).toBeGreaterThan(0.7);
    // All but the last two, which judge the result, were asked during the attack.
    const during = judge.asked.slice(0, -2);
    expect(during.length).toBeGreaterThan(0);
    for (const x of during) expect(x).toBeGreaterThan(0.5);
    for (const x of during.slice(0, -1)) expect(x).toBeLessThanOrEqual(0.7);
  });

  test('a classifier of several draws is judged by draw 0, too', async () => {
    const net = threshold(0.5, 2);
    const found = await attackAndJudge(campaign(net), { ...plan, stepSize: 0.125 }, IMAGE);
    expect(found.broken).toBe(true);
    expect(net.draws.filter((draw) => draw === 0).length).toBeGreaterThanOrEqual(4);
  });

  test.each([
    ['a transfer', { attacked: threshold(0.5), transfer: true }],
    ['fresh random numbers', { randomness: 'fresh' as const }],
  ])('under %s the result is judged once, at the end', async (_, more) => {
    const judge = threshold(0.5);
    const found = await attackAndJudge(campaign(judge, more), plan, IMAGE);
    expect(found).toMatchObject({ broken: true, queries: { logits: 1, gradients: 9 } });
    expect(judge.draws.filter((draw) => draw === 0)).toHaveLength(2);
  });

  test('the step size reaches the attack', async () => {
    const options = campaign(threshold(), { eps: 0.125 });
    const { found } = await attackAndJudge(options, { ...plan, steps: 1, stepSize: 1e-6 }, IMAGE);
    const start = startIn({ norm: 'linf', eps: 0.125 }, IMAGE.x, randomOf(0, 'image', 'pgd 0'))[0]!;
    expect(start).toBeLessThan(0.37); // steps of the default size end at 0.375
    expect(found[0]).toBeCloseTo(start, 5);
  });
});

describe('by name', () => {
  test('the names, the defaults, and what an attack needs', () => {
    const rows = ATTACK_ENTRIES.map(
      ({ name, defaults: { steps, restarts }, leastClasses, usesGradients }) => [
        name,
        steps,
        restarts,
        leastClasses,
        usesGradients,
      ],
    );
    expect(rows).toEqual([
      ['pgd', 100, 1, 2, true],
      ['apgd-ce', 100, 1, 2, true],
      ['apgd-dlr', 100, 1, 3, true],
      ['apgd-t', 100, 9, 4, true],
      ['apgd-ce-t', 100, 9, 2, true],
      ['square', 5000, 1, 2, false],
    ]);
    expect(ATTACKS).toEqual(rows.map(([name]) => name));
    for (const name of ATTACKS) {
      const least = ATTACK_ENTRIES.find((entry) => entry.name === name)!.leastClasses;
      expect(() => attackOf(name, { steps: 1 }, least)).not.toThrow();
      expect(() => attackOf(name, { steps: 1 }, least - 1)).toThrow(
        new UsageError(`--attack ${name} compares ${least} classes, the model has ${least - 1}`),
      );
    }
    expect(() => attackOf('best' as 'pgd', { steps: 1 }, 9)).toThrow(UsageError);
  });

  test('each is its algorithm with its loss, in every restart', async () => {
    const image = { x: Float64Array.from({ length: 16 }, (_, i) => 0.3 + 0.02 * i), label: 1, key: 'named' };
    const pointsOf = async (attack: Attack) => {
      const points: Float64Array[] = [];
      await attackImage(linearClassifier(5, 4), image, {
        ...OPTIONS,
        norm: 'l2',
        restarts: 3,
        attack: (trial) => attack({ ...trial, keep: async (x) => points.push(x) < 0 }),
      });
      return points;
    };
    const steps = 6;
    const withLoss = (loss: ApgdOptions['loss']) => apgd({ steps, loss });
    const attacks: Record<AttackName, Attack> = {
      pgd: pgd({ steps }),
      'apgd-ce': withLoss(({ label }) => crossEntropy(label)),
      'apgd-dlr': withLoss(({ label }) => dlr(label)),
      'apgd-t': withLoss(({ label, clean, restart }) => targetedDlr(label, targetOf(clean, label, restart))),
      'apgd-ce-t': withLoss(({ label, clean, restart }) =>
        targetedCrossEntropy(targetOf(clean, label, restart)),
      ),
      square: square({ queries: steps }),
    };
    for (const name of ATTACKS) {
      const points = await pointsOf(attackOf(name, { steps }, 5));
      expect(points).toHaveLength(3 * (name === 'square' ? steps : steps + 1));
      expect(points).toEqual(await pointsOf(attacks[name]));
    }
  });
});

describe('APGD', () => {
  test('checkpoints: the share of steps between them shrinks, and each counts once', () => {
    expect(checkpoints(100)).toEqual([22, 41, 57, 70, 80, 87, 93, 99]);
    expect(checkpoints(10)).toEqual([3, 5, 6, 7, 8, 9, 10]);
    expect(checkpoints(5)).toEqual([2, 3, 4, 5]);
    expect(checkpoints(1)).toEqual([1]);
  });

  /** Runs APGD on one pixel from 0.5, with the loss and the sign of the gradient given by the number of the point. */
  async function points(
    steps: number,
    lossOf: (k: number) => number,
    { signOf = (_: number): number => 1, breaksAt = Number.POSITIVE_INFINITY } = {},
  ) {
    const visited: number[] = [];
    const asked = {
      async evaluate(x: Float64Array) {
        const k = visited.push(x[0]!) - 1;
        return { value: lossOf(k), gradient: Float64Array.of(signOf(k)), judged: Float64Array.of(0) };
      },
    };
    await apgd({ steps, loss: () => crossEntropy(0) })({
      asked,
      centre: Float64Array.of(0.5),
      ball: { norm: 'linf', eps: 0.25 },
      random: { uniform: () => 0.5 },
      keep: async (_: Float64Array, value: number) => {
        expect(value).toBe(lossOf(visited.length - 1));
        return visited.length === breaksAt;
      },
    } as unknown as AttackTrial);
    return visited;
  }
  /** One move: three quarters of the step, in the ball, and a quarter of the last move. */
  const moved = (x: number, before: number, size: number, sign: number) => {
    const within = (v: number) => Math.min(0.75, Math.max(0.25, v));
    return within(x + 0.75 * (within(x + size * sign) - x) + 0.25 * (x - before));
  };

  test('a loss that never rises: half the step, from the first of the best points, at every checkpoint', async () => {
    expect(await points(10, () => 1)).toEqual([
      0.5, 0.75, 0.75, 0.75, 0.625, 0.75, 0.5625, 0.546875, 0.5234375, 0.51171875, 0.505859375,
    ]);
  });

  test('a loss that always rises: the same step to the end', async () => {
    const signOf = (k: number) => (k % 5 < 3 ? -1 : 1);
    const found = await points(40, (k) => k, { signOf });
    for (let k = 2; k <= 40; k++)
      expect(found[k]).toBeCloseTo(moved(found[k - 1]!, found[k - 2]!, 0.5, signOf(k - 1)), 12);
  });

  test('a loss that rises without a new best: half the step, but not twice in a row', async () => {
    // Rises to point 8, falls at the first checkpoint (9), rises to the second (17), falls, rises to the third (23).
    const lossOf = (k: number) => (k <= 8 ? k : k <= 17 ? k - 100 : k - 200);
    const signOf = (k: number) => (k % 5 < 3 ? -1 : 1);
    const found = await points(40, lossOf, { signOf });
    const step = (from: number, to: number, size: number) =>
      moved(found[from]!, found[to - 2]!, size, signOf(from));
    for (let k = 2; k <= 17; k++) expect(found[k]).toBeCloseTo(step(k - 1, k, 0.5), 12);
    expect(found[18]).toBeCloseTo(step(8, 18, 0.25), 12);
    expect(step(8, 18, 0.25)).not.toBeCloseTo(step(17, 18, 0.5), 2);
    expect(step(8, 18, 0.25)).not.toBeCloseTo(step(17, 18, 0.25), 2);
    for (let k = 19; k <= 28; k++) expect(found[k]).toBeCloseTo(step(k - 1, k, 0.25), 12);
  });

  test('ends if the image is broken', async () => {
    for (const breaksAt of [1, 4]) expect(await points(10, (k) => k, { breaksAt })).toHaveLength(breaksAt);
  });
});
