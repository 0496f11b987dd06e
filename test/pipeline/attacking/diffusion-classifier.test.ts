// Which evaluations a diffusion model makes as a classifier, and how errors and gradients of levels and candidates are
// put together, on a model whose errors and gradients are numbers from a table.

import { describe, expect, test } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import type { Candidate, Level, Model } from '../../../src/graph/model.ts';
import { diffusionClassifier } from '../../../src/pipeline/attacking/diffusion-classifier.ts';
import { purified } from '../../../src/pipeline/attacking/purified-classifier.ts';
import type { Denoising } from '../../../src/pipeline/purifying/chain.ts';
import { fakeCandidates, hash } from '../fake-model.ts';

interface TableOptions {
  readonly candidates?: readonly Candidate[];
  readonly levels?: readonly Level[];
  readonly noisePairing?: 'visit';
  readonly errorOf?: (candidate: number, level: number, noise: number) => number;
  /** How gradients are computed: one by one, as weighted sums of a view, or not at all. */
  readonly gradients?: 'each' | 'sums' | 'none';
}

const LEVELS = [3, 1, 2, 0].map((t, k) => ({ t, weight: [1, 2, 0, 5][k]! }));
const errorAt = (c: number, level: number, noise: number) => Math.fround(0.5 + hash(c, level, noise));
const rowAt = (c: number, level: number, noise: number) => [c + 1, 10 * level + noise];

/** A model of images [1, 1, 2] that keeps what it was asked, as [candidate, level, noise]. */
function table({
  candidates = fakeCandidates(3),
  levels = LEVELS,
  noisePairing,
  errorOf = errorAt,
  gradients = 'each',
}: TableOptions = {}) {
  const asked: number[][] = [];
  const derived: number[][] = [];
  const images: number[][] = [];
  const model: Model = {
    name: 'table',
    inputShape: [1, 1, 2],
    candidates,
    levels,
    noisePairing,
    batchSize: 64,
    slots: 2,
    temperature: 0.25,
    encode: (_, image) => void images.push([...image]),
    async errors({ candidate, level, noise }) {
      const rows = Array.from(candidate, (c, i) => [c, level[i]!, noise[i]!] as const);
      asked.push(...rows.map((row) => [...row]));
      return Float32Array.from(rows, (row) => errorOf(...row));
    },
    ...(gradients !== 'none' && {
      differentiable: {
        mixes: levels.map(() => ({ a: 1, b: 1 })),
        gradientBatchSize: 64,
        async gradients({ candidate, level, noise }) {
          const rows = Array.from(candidate, (c, i) => [c, level[i]!, noise[i]!] as const);
          derived.push(...rows.map((row) => [...row]));
          return {
            errors: Float32Array.from(rows, (row) => errorOf(...row)),
            gradients: Float32Array.from(rows.flatMap((row) => rowAt(...row))),
          };
        },
        ...(gradients === 'sums' && {
          viewBatchSize: 8,
          async viewGradients({ level, noise }, { view, candidate, weight }) {
            const found = new Float32Array(2 * level.length);
            for (const [i, v] of view.entries()) {
              derived.push([candidate[i]!, level[v]!, noise[v]!]);
              for (const [k, value] of rowAt(candidate[i]!, level[v]!, noise[v]!).entries())
                found[2 * v + k]! += weight[i]! * value;
            }
            return found;
          },
        }),
        predict: async ({ xt }) => xt,
        pullBack: async ({ cotangent }) => cotangent,
      } satisfies Model['differentiable'],
    }),
    close() {},
  };
  return { model, asked, derived, images };
}

const X = Float64Array.of(0.25, 1);

describe('the evaluations', () => {
  const asks = async (options: TableOptions, draw: number, levelsPerDraw?: number) => {
    const { model, asked } = table(options);
    await diffusionClassifier(model, { levelsPerDraw }).logits(X, draw);
    return asked;
  };
  const each = (...visits: [level: number, noise: number][]) =>
    visits.flatMap(([level, noise]) => [0, 1, 2].map((c) => [c, level, noise]));

  test('all candidates at all levels that count; noise goes on from draw to draw', async () => {
    expect(await asks({}, 0)).toEqual(each([0, 0], [1, 1], [3, 3]));
    expect(await asks({}, 2)).toEqual(each([0, 8], [1, 9], [3, 11]));
  });

  test('a file of noises belongs to the ascending grid', async () => {
    expect(await asks({ noisePairing: 'visit' }, 0)).toEqual(each([3, 0], [1, 1], [0, 3]));
  });

  test('a part of the levels per draw, one part after the other', async () => {
    expect(await asks({}, 0, 3)).toEqual(each([0, 0], [1, 1]));
    expect(await asks({}, 1, 3)).toEqual(each([3, 3], [0, 4], [1, 5]));
    expect(diffusionClassifier(table().model, { levelsPerDraw: 3 }).period).toBe(2);
    expect(diffusionClassifier(table().model, { levelsPerDraw: 9 }).period).toBe(1);
    expect(await asks({}, 1, 9)).toEqual(each([0, 4], [1, 5], [3, 7]));
  });

  test('levels count the same if a draw has none with a weight, or the grid has none', async () => {
    expect(await asks({}, 2, 1)).toEqual(each([2, 2]));
    const none = LEVELS.map((level) => ({ ...level, weight: 0 }));
    expect(await asks({ levels: none }, 0, 2)).toEqual(each([0, 0], [1, 1]));
  });

  test('the image is brought to [-1, 1]', async () => {
    const { model, images } = table();
    await diffusionClassifier(model).logits(X, 0);
    expect(images).toEqual([[-0.5, 1]]);
  });
});

describe('logits', () => {
  const mean = (
    c: number,
    visits: readonly (readonly [level: number, weight: number])[],
    errorOf = errorAt,
  ) =>
    visits.reduce((sum, [level, weight]) => sum + weight * errorOf(c, level, level), 0) /
    visits.reduce((sum, [, weight]) => sum + weight, 0);

  test('are weighted mean errors over the temperature', async () => {
    const logits = await diffusionClassifier(table().model).logits(X, 0);
    for (const c of [0, 1, 2])
      expect(logits[c]).toBeCloseTo(
        -mean(c, [
          [0, 1],
          [1, 2],
          [3, 5],
        ]) / 0.25,
        10,
      );
  });

  test('of a grid or a draw without weights are means', async () => {
    const none = LEVELS.map((level) => ({ ...level, weight: 0 }));
    const all = await diffusionClassifier(table({ levels: none }).model).logits(X, 0);
    for (const c of [0, 1, 2])
      expect(all[c]).toBeCloseTo(
        -mean(c, [
          [0, 1],
          [1, 1],
          [2, 1],
          [3, 1],
        ]) / 0.25,
        10,
      );
    const zeros = [0, 0, 1, 1].map((weight, k) => ({ t: LEVELS[k]!.t, weight }));
    const part = await diffusionClassifier(table({ levels: zeros }).model, { levelsPerDraw: 2 }).logits(X, 0);
    for (const c of [0, 1, 2])
      expect(part[c]).toBeCloseTo(
        -mean(c, [
          [0, 1],
          [1, 1],
        ]) / 0.25,
        10,
      );
  });

  const prompts = [
    { label: 'cat', classidx: 7, prompt: 'a cat' },
    { label: '', classidx: -1 },
    { label: 'dog', classidx: 4, prompt: 'a dog' },
    { label: 'cat', classidx: 7, prompt: 'the cat' },
  ];

  test('of a class are those of its best candidate; what has no class is not evaluated', async () => {
    for (const better of [0, 3]) {
      const errorOf = (c: number) => (c === 2 ? 0.75 : c === better ? 0.25 : 0.5);
      const { model, asked } = table({ candidates: prompts, errorOf });
      const classifier = diffusionClassifier(model);
      expect(classifier.classes).toBe(2);
      expect(classifier.labels).toMatchObject([
        { label: 'cat', classidx: 7 },
        { label: 'dog', classidx: 4 },
      ]);
      const logits = await classifier.logits(X, 0);
      expect(logits[0]).toBeCloseTo(-1, 6);
      expect(logits[1]).toBeCloseTo(-3, 6);
      expect(new Set(asked.map(([c]) => c))).toEqual(new Set([0, 2, 3]));
      // The gradient is that of the best candidate, too.
      const { derived, model: same } = table({ candidates: prompts, errorOf });
      await diffusionClassifier(same).gradient!(X, 0, () => Float64Array.of(1, 0));
      expect(new Set(derived.map(([c]) => c))).toEqual(new Set([better]));
    }
  });

  test('of equal candidates of a class the first is derived', async () => {
    const { derived, model } = table({ candidates: prompts, errorOf: () => 0.5 });
    await diffusionClassifier(model).gradient!(X, 0, () => Float64Array.of(1, 1));
    expect(new Set(derived.map(([c]) => c))).toEqual(new Set([0, 2]));
  });

  test('need two classes', () => {
    const of = (count: number) => () =>
      diffusionClassifier(table({ candidates: fakeCandidates(count) }).model);
    expect(of(1)).toThrow(new ModelError('table: expected two classes or more, got 1'));
    expect(of(2)).not.toThrow();
  });
});

describe('gradients', () => {
  const WEIGHTS = [1 / 8, 2 / 8, 0, 5 / 8];

  test.each(['each', 'sums'] as const)('are sums over candidates and levels (%s)', async (gradients) => {
    const { model, derived } = table({ gradients });
    const by = [2, -0.5, 0];
    let seen: Float64Array | undefined;
    const { gradient, logits } = await diffusionClassifier(model).gradient!(X, 0, (z) => {
      seen = z;
      return Float64Array.from(by);
    });
    expect(seen).toBe(logits);
    const expected = [0, 0];
    for (const c of [0, 1])
      for (const level of [0, 1, 3])
        for (const [k, value] of rowAt(c, level, level).entries())
          expected[k]! += ((-2 * by[c]!) / 0.25) * WEIGHTS[level]! * value;
    for (const [k, value] of expected.entries()) expect(gradient[k]).toBeCloseTo(value, 4);
    expect(gradient).toHaveLength(2);
    // The class that does not change the loss is left out.
    expect(derived).toEqual([0, 1, 3].flatMap((level) => [0, 1].map((c) => [c, level, level])));
  });

  test('leave out classes that hardly change the loss', async () => {
    const classesOf = async (...by: number[]) => {
      const { model, derived } = table();
      await diffusionClassifier(model).gradient!(X, 0, () => Float64Array.from(by));
      return [...new Set(derived.map(([c]) => c))];
    };
    expect(await classesOf(-1, 2e-6, 5e-7)).toEqual([0, 1]);
    expect(await classesOf(1e-9, -1000, 2e-3)).toEqual([1, 2]);
    expect(await classesOf(1e-9, 2e-12, 1e-16)).toEqual([0, 1]);
  });

  test('are absent if the model has none', () => {
    expect('gradient' in diffusionClassifier(table({ gradients: 'none' }).model)).toBe(false);
    expect('gradient' in diffusionClassifier(table().model)).toBe(true);
  });
});

test('behind a purification, all draws of a period are purified in the same way', async () => {
  const { model } = table();
  const classifier = diffusionClassifier(model, { levelsPerDraw: 2 });
  expect(classifier.period).toBe(2);
  const draws: number[] = [];
  const stepsOf = (draw: number) => {
    draws.push(draw);
    const halve = async (_: unknown, { x }: { x: Float32Array }) => ({ x: x.map((v) => v / 2) });
    const pullBack = async () => ({ x: new Float64Array(2) });
    return [halve, halve].map((forward) => ({ forward, pullBack }));
  };
  const behind = purified(classifier, { denoising: {} as Denoising, stepsOf }, 'identity');
  for (const draw of [0, 1, 2, 3, 4]) await behind.logits(X, draw);
  expect(draws).toEqual([0, 0, 1, 1, 2]);
});
