import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import { evenTimesteps } from '../../src/pipeline/deciding/levels.ts';
import { staged } from '../../src/pipeline/deciding/staged.ts';
import { weightedMean } from '../../src/pipeline/deciding/trial.ts';
import type { EvaluationRecord } from '../../src/pipeline/types.ts';
import { stagedReference } from '../reference/staged.ts';
import { collect, fakeCandidates, fakeModel, hash, image, images, runTrial } from './fake-model.ts';

/** The record of one image from `test/golden/make.py`. */
interface GoldenCase {
  readonly n_samples: readonly number[];
  readonly to_keep: readonly number[];
  readonly label: number;
  readonly stages: readonly {
    readonly timesteps: readonly number[];
    readonly noise: readonly number[];
    readonly errors: Readonly<Record<string, readonly number[]>>;
    readonly means: Readonly<Record<string, number>>;
  }[];
}

const grid = (nSamples: readonly number[]) =>
  evenTimesteps(Math.max(...nSamples), 1000).map((t) => ({ t, weight: 1 }));

/** Runs the strategy of a trial to its end. */
function run(
  prompts: number,
  nSamples: readonly number[],
  toKeep: readonly number[],
  error: (prompt: number, t: number, noise: number) => number,
  levels = grid(nSamples),
) {
  const evaluations: [number, number, number][] = [];
  const info = { candidates: fakeCandidates(prompts), levels };
  const trial = runTrial(staged({ nSamples, toKeep }), info, (prompt, level, noise) => {
    const { t } = levels[level]!;
    evaluations.push([prompt, t, noise]);
    return error(prompt, t, noise);
  });
  return { trial, evaluations };
}

describe('staged elimination', () => {
  // The schedules of the published table, and some unusual ones.
  it.each([
    [101, [20, 50, 100, 500], [20, 10, 5, 1]],
    [10, [50, 500], [5, 1]],
    [37, [25, 250], [5, 1]],
    [113, [50, 100, 500, 1000], [25, 10, 5, 1]],
    [10, [7, 30], [3, 1]],
    [10, [24, 24, 24], [5, 3, 1]],
    [10, [24, 5], [5, 1]],
    [3, [2, 9], [5, 1]],
    [4, [1], [1]],
  ])('%d prompts, %j levels, keeping %j: the reference, evaluation by evaluation', (prompts, n, keep) => {
    for (let seed = 0; seed < 3; seed++) {
      const error = (prompt: number, t: number, noise: number) =>
        Math.fround(Math.round(16 * hash(seed, prompt, t, noise)) / 16 + (prompt === seed ? -0.01 : 0));
      const expected = stagedReference(prompts, n, keep, error);
      const actual = run(prompts, n, keep, error);
      expect(actual.evaluations).toEqual(expected.evaluations);
      expect(actual.trial.survivors).toEqual([expected.winner]);
      for (const [prompt, mean] of expected.means.entries()) {
        const seen = actual.evaluations.filter(([p]) => p === prompt).length;
        expect(weightedMean(actual.trial, prompt, seen)).toBe(mean);
      }
    }
  });

  it('needs the evaluations of the published table', () => {
    const spent = (prompts: number, n: readonly number[], keep: readonly number[]) =>
      run(prompts, n, keep, (prompt, t) => hash(prompt, t)).trial.evaluations;
    expect(spent(101, [20, 50, 100, 500], [20, 10, 5, 1])).toBe(5570);
    expect(spent(10, [50, 500], [5, 1])).toBe(2750);
    expect(spent(37, [25, 250], [5, 1])).toBe(2050);
    expect(spent(10, [100, 500], [5, 1])).toBe(3000);
    expect(spent(1000, [50, 100, 500, 1000], [500, 50, 10, 1])).toBe(124_500);
  });

  it("finds the grid for any order of the model's levels", () => {
    const levels = grid([4, 12]);
    const shuffled = [...levels].sort((a, b) => hash(a.t) - hash(b.t));
    const error = (prompt: number, t: number, noise: number) => hash(prompt, t, noise);
    expect(run(6, [4, 12], [3, 1], error, shuffled).evaluations).toEqual(
      run(6, [4, 12], [3, 1], error, levels).evaluations,
    );
  });

  it('evaluates the same in the pipeline as the reference', async () => {
    const levels = grid([5, 20]);
    const errorOf = (id: number, prompt: number, level: number, noise: number) =>
      Math.fround(hash(id, prompt, levels[level]!.t, noise));
    const log = new Map<string, EvaluationRecord[]>();
    await collect(
      classifyImages(images(0, 5), async () => fakeModel({ levels, candidates: 8, errorOf, batchSize: 7 }), {
        strategy: staged({ nSamples: [5, 20], toKeep: [3, 1] }),
        onEvaluations: (records) => {
          for (const record of records) log.set(record.path, [...(log.get(record.path) ?? []), record]);
        },
      }),
    );
    for (let id = 0; id < 5; id++) {
      const { path } = image(id);
      const error = (prompt: number, t: number, noise: number) => Math.fround(hash(id, prompt, t, noise));
      const { evaluations } = stagedReference(8, [5, 20], [3, 1], error);
      expect(log.get(path)).toEqual(
        evaluations.map(([candidate, t, noise]) => ({
          path,
          candidate,
          t,
          noise,
          weight: 1,
          error: error(candidate, t, noise),
        })),
      );
    }
  });

  it.each(['epsilon', 'v_prediction', 'sample'])(
    'equals PyTorch in every evaluation and survivor (%s)',
    async (kind) => {
      const file = new URL(`../golden/errors-${kind}/expected.json`, import.meta.url);
      const cases: readonly GoldenCase[] = JSON.parse(await readFile(file, 'utf8'));
      for (const { n_samples, to_keep, stages, label } of cases) {
        const expected: (readonly [number, number, number])[] = [];
        const errors = new Map<string, number>();
        for (const stage of stages)
          for (const [k, t] of stage.timesteps.entries())
            for (const [c, own] of Object.entries(stage.errors)) {
              expected.push([Number(c), t, stage.noise[k]!]);
              errors.set(`${c} at ${t}`, own[k]!);
            }
        const actual = run(10, n_samples, to_keep, (c, t) => errors.get(`${c} at ${t}`) ?? Number.NaN);
        expect(actual.evaluations).toEqual(expected);
        expect(actual.trial.survivors).toEqual([label]);
        for (const { means, noise } of stages)
          for (const [c, mean] of Object.entries(means))
            expect(weightedMean(actual.trial, Number(c), noise.at(-1)! + 1)).toBeCloseTo(mean, 6);
      }
    },
  );

  it.each([
    ['lists of different length', [5, 10], [1]],
    ['no stage', [], []],
    ['a last stage that keeps more than one', [5, 10], [5, 2]],
    ['zero samples', [0], [1]],
    ['fractions', [2.5], [1]],
    ['keeping none', [5, 10], [0, 1]],
  ])('refuses %s', (_, nSamples, toKeep) => {
    expect(() => staged({ nSamples, toKeep })).toThrow(UsageError);
  });

  it('rejects more samples than the grid has levels', () => {
    expect(() =>
      staged({ nSamples: [25], toKeep: [1] })({ candidates: fakeCandidates(3), levels: grid([24]) }),
    ).toThrow('staged: expected at most the 24 levels of the grid per stage, got 25');
  });
});
