import { describe, expect, it } from 'vitest';
import type { Candidate, Level } from '../../src/graph/model.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { aggregate, eliminate, startTrial, type Trial } from '../../src/pipeline/deciding/trial.ts';
import { standings, verdict } from '../../src/pipeline/deciding/verdict.ts';
import { isFailure } from '../../src/pipeline/types.ts';
import { collect, fakeCandidates, fakeLevels, fakeModel, images } from './fake-model.ts';

/**
 * Returns a trial from one row of errors per level; `left` is the number of levels after which a candidate was
 * dropped.
 */
function trialOf(
  rows: readonly (readonly number[])[],
  left: Readonly<Record<number, number>> = {},
  candidates: readonly Candidate[] = fakeCandidates(rows[0]!.length),
  levels: readonly Level[] = fakeLevels(rows.length),
): Trial {
  let trial = startTrial({ candidates, levels });
  for (const [k, row] of rows.entries()) {
    const survivors = trial.survivors.filter((c) => k < (left[c] ?? rows.length));
    [trial] = eliminate(trial, { survivors, levels: [k] });
    const fan = { candidates: survivors, level: k, noise: k };
    trial = aggregate(trial, [fan], [Float32Array.from(survivors, (c) => row[c]!)]);
  }
  return { ...trial, decided: true };
}

describe('standings', () => {
  it('compare an eliminated candidate with the best over the levels that both have', () => {
    // Level 0 is much easier than level 1, so candidate 1's own mean (0.2) would be the smallest.
    const [best, gone] = standings(
      trialOf(
        [
          [0.125, 0.25],
          [0.875, 0],
        ],
        { 1: 1 },
      ),
    );
    expect(best).toMatchObject({ error: 0.5, stderr: 0, evaluations: 2 });
    expect(gone).toMatchObject({ error: 0.5 + 0.125, evaluations: 1 });
  });

  it('never let an eliminated candidate win', () => {
    // Candidate 2 was best when it was dropped (which our strategies never do); candidate 0 is best in the end.
    const trial = trialOf(
      [
        [0.5, 0.75, 0.25],
        [0.25, 0.5, 0],
      ],
      { 2: 1 },
    );
    expect(standings(trial)[2]!.error).toBe(0.375);
    expect(verdict(trial, 1).label).toBe('class 0');
  });

  it('have the standard error of a mean paired difference', () => {
    // Differences 0.25, 0.5, 0.75: standard deviation 0.25 over 3 levels.
    const trial = trialOf([
      [0.5, 0.75],
      [0.125, 0.625],
      [0, 0.75],
    ]);
    expect(standings(trial)[1]!.stderr).toBeCloseTo(0.25 / Math.sqrt(3), 12);
  });

  it('ignore levels of weight 0 in the standard error', () => {
    const weights = [1, 0, 1, 1].map((weight, t) => ({ t, weight }));
    const rows = [
      [0.5, 0.75],
      [0, 100],
      [0.125, 0.625],
      [0, 0.75],
    ];
    const { error, stderr } = standings(trialOf(rows, {}, undefined, weights))[1]!;
    expect(error).toBeCloseTo(0.625 / 3 + 0.5, 12);
    expect(stderr).toBeCloseTo((0.25 / Math.sqrt(3)) * Math.sqrt((4 / 3) * (2 / 3)), 12);
  });

  it('have a finite standard error after a single level', () => {
    const { stderr } = standings(trialOf([[0.25, 0.5, 0.75]]))[1]!;
    expect(stderr).toBeCloseTo(0.25, 12);
  });
});

describe('verdict', () => {
  const rows = [
    [0.3, 0.2, 0.5],
    [0.3, 0.2, 0.5],
  ];

  it('has the softmax of the errors over the temperature as probabilities', () => {
    const { top, margin, label, decided } = verdict(trialOf(rows), 0.1);
    const total = 1 + Math.exp(-1) + Math.exp(-3);
    expect(top.map(({ classidx }) => classidx)).toEqual([1, 0, 2]);
    expect(label).toBe('class 1');
    expect(decided).toBe(true);
    for (const [i, expected] of [1, Math.exp(-1), Math.exp(-3)].entries())
      expect(top[i]!.probability).toBeCloseTo(expected / total, 6);
    expect(margin).toBeCloseTo((1 - Math.exp(-1)) / total, 6);
  });

  it('shortens the list with top-k, but keeps the probabilities', () => {
    const cut = verdict(trialOf(rows), 0.1, 1);
    expect(cut.top).toEqual(verdict(trialOf(rows), 0.1).top.slice(0, 1));
    expect(cut.margin).toBe(verdict(trialOf(rows), 0.1).margin);
  });

  it('uses the best prompt of each class; the probabilities of the classes sum to 1', () => {
    const prompts = [
      { label: 'cat', classidx: 7, prompt: 'a cat' },
      { label: 'dog', classidx: 9, prompt: 'a dog' },
      { label: 'cat', classidx: 7, prompt: 'a photo of a cat' },
    ];
    const { top, label, classidx } = verdict(trialOf([[0.5, 0.25, 0.25 - 1e-3]], {}, prompts), 1e-3);
    expect([label, classidx]).toEqual(['cat', 7]);
    expect(top.map(({ classidx, evaluations }) => [classidx, evaluations])).toEqual([
      [7, 2],
      [9, 1],
    ]);
    expect(top[0]!.probability).toBeCloseTo(1 / (1 + Math.exp(-1)), 4);
    expect(top[0]!.probability + top[1]!.probability).toBeCloseTo(1, 12);
  });

  it('is the first candidate if errors are equal', () => {
    expect(verdict(trialOf([[0.5, 0.25, 0.25]]), 1).label).toBe('class 1');
  });

  it('is certain for a single class', () => {
    expect(verdict(trialOf([[0.5]]), 1)).toMatchObject({ probability: 1, margin: 1 });
  });

  it('has no NaN for huge gaps and tiny temperatures', () => {
    const { top } = verdict(trialOf([[1e-30, 3e30, 1]]), 1e-300);
    expect(top.map(({ probability }) => probability)).toEqual([1, 0, 0]);
  });

  it('does not exist without evaluations', () => {
    expect(() => verdict(startTrial({ candidates: fakeCandidates(3), levels: fakeLevels(3) }), 1)).toThrow(
      'expected a trial with evaluations',
    );
  });

  it('is a line of JSON with the fields of the contract', async () => {
    const options = { strategy: all(), seed: 4, topK: 2 };
    for (const result of await collect(classifyImages(images(0, 3), async () => fakeModel(), options))) {
      if (isFailure(result)) throw new Error(result.error.message);
      expect(Object.keys(result)).toEqual([
        'path',
        'label',
        'classidx',
        'probability',
        'top',
        'margin',
        'decided',
        'evaluations',
        'seconds',
        'seed',
        'model',
      ]);
      expect(Object.keys(result.top[0]!)).toEqual([
        'label',
        'classidx',
        'probability',
        'error',
        'stderr',
        'evaluations',
      ]);
      expect(result).toMatchObject({ decided: true, evaluations: 240, seed: 4, model: 'fake' });
      expect(result.top).toHaveLength(2);
      expect(JSON.parse(JSON.stringify(result))).toEqual(result);
    }
  });
});
