import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import type { Candidate, Level } from '../../src/graph/model.ts';
import { visitingOrder } from '../../src/graph/visiting.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { type SequentialOptions, sequential } from '../../src/pipeline/deciding/sequential.ts';
import { bestOf, type Trial } from '../../src/pipeline/deciding/trial.ts';
import { verdict } from '../../src/pipeline/deciding/verdict.ts';
import { fakeCandidates, gauss, hash, runTrial } from './fake-model.ts';

const DIMENSIONS = 24;
const IMAGES = 200;

/**
 * Returns a world in which the theory of the likelihood ratio holds: candidate c predicts a point, the truth is one of
 * the candidates, errors are mean squared distances to truth + noise. kappa = 4 sigma^2 / dimensions.
 */
function linearGaussian({ candidates = 10, levels = 24, sigma = 1, spread = 0.3, misfit = 0 } = {}) {
  const order = visitingOrder(levels);
  const info = {
    candidates: fakeCandidates(candidates),
    levels: order.map((t): Level => ({ t, weight: 1 })),
    kappa: (4 * sigma ** 2) / DIMENSIONS,
  };
  const cases = new Map<number, { truth: number; errorOf: (c: number, level: number) => number }>();
  const caseOf = (image: number) => {
    const truth = Math.floor(hash(image, 99) * candidates);
    const points = Array.from({ length: candidates }, (_, c) => vector((i) => spread * gauss(image, c, i)));
    const miss = vector((i) => misfit * gauss(image, i, 8));
    const errors = order.map((t) => {
      const eps = vector((i) => sigma * gauss(image, t, i, 7) + miss[i]! + points[truth]![i]!);
      return points.map((point) => meanSquare((i) => eps[i]! - point[i]!));
    });
    return { truth, errorOf: (c: number, level: number) => errors[level]![c]! };
  };
  const errorOf = (image: number) => {
    const known = cases.get(image) ?? caseOf(image);
    cases.set(image, known);
    return known;
  };
  return { info, errorOf };
}

const vector = (of: (i: number) => number): number[] => Array.from({ length: DIMENSIONS }, (_, i) => of(i));

const meanSquare = (of: (i: number) => number): number =>
  vector(of).reduce((sum, x) => sum + x * x, 0) / DIMENSIONS;

/** Returns the agreement with the exhaustive answer and with the truth, and the share of evaluations. */
function measure(options: SequentialOptions, world: ReturnType<typeof linearGaussian>, images = IMAGES) {
  const { kappa, ...unknown } = world.info;
  const info = options.kappa === undefined ? unknown : { ...unknown, kappa };
  let agreement = 0;
  let truths = 0;
  let share = 0;
  for (let image = 0; image < images; image++) {
    const { truth, errorOf } = world.errorOf(image);
    const exhaustive = runTrial(all(), info, errorOf);
    const trial = runTrial(sequential(options), info, errorOf);
    const label = bestOf(trial, trial.survivors);
    if (label === bestOf(exhaustive, exhaustive.survivors)) agreement += 1 / images;
    if (label === truth) truths += 1 / images;
    share += trial.evaluations / exhaustive.evaluations / images;
    expect(trial.evaluations).toBeLessThanOrEqual(exhaustive.evaluations);
    expect(trial.risk).toBeLessThanOrEqual(1 - (options.confidence ?? 0.99));
    expect(trial.decided).toBe(true);
  }
  return { agreement, truths, share };
}

/** Three standard errors of a share of the images. */
const slack = (confidence: number) => 3 * Math.sqrt((confidence * (1 - confidence)) / IMAGES);

describe('the answer equals the exhaustive one with the requested confidence', () => {
  // Clear images, images for which single levels say little, and errors whose mean does not favour the truth.
  const worlds = {
    clear: linearGaussian({ spread: 0.8 }),
    hard: linearGaussian({ spread: 0.25 }),
    'long and hard': linearGaussian({ levels: 48, spread: 0.15, candidates: 6 }),
    misfit: linearGaussian({ spread: 0.5, misfit: 0.3 }),
  };

  describe.each(Object.entries(worlds))('%s', (_, world) => {
    it.each([0.9, 0.99])('paired t-test at %d', (confidence) => {
      const { agreement } = measure({ confidence }, world);
      expect(agreement).toBeGreaterThanOrEqual(confidence - slack(confidence));
    });

    it.each([0.9, 0.99])('likelihood ratio at %d', (confidence) => {
      const { kappa } = world.info;
      const { agreement } = measure({ confidence, kappa }, world);
      expect(agreement).toBeGreaterThanOrEqual(confidence - slack(confidence));
    });
  });

  it('costs a fraction of the exhaustive run, and less with kappa', () => {
    const { kappa } = worlds.clear.info;
    const ratio = measure({ kappa }, worlds.clear);
    const paired = measure({}, worlds.clear);
    expect(ratio.share).toBeLessThan(1 / 5);
    expect(paired.share).toBeLessThan(1 / 3);
    expect(ratio.share).toBeLessThan(paired.share);
  });

  it('costs more for a higher confidence', () => {
    const { kappa } = worlds.hard.info;
    for (const known of [{}, { kappa }]) {
      const shares = [0.8, 0.95, 0.99, 0.9999].map(
        (confidence) => measure({ confidence, ...known }, worlds.hard, 100).share,
      );
      expect(shares).toEqual([...shares].sort((a, b) => a - b));
    }
  });
});

describe('the evaluations of an image', () => {
  const world = linearGaussian({ spread: 0.5 });
  const { kappa: _, ...unknown } = world.info;
  const trialOf = (
    options: SequentialOptions,
    errorOf: (c: number, level: number) => number,
    info: { candidates: readonly Candidate[]; levels: readonly Level[]; kappa?: number } = unknown,
  ): Trial => runTrial(sequential(options), info, errorOf);

  it('follow the order of the model; the k-th level has noise k', () => {
    const seen: [number, number][] = [];
    const { errorOf } = world.errorOf(3);
    runTrial(sequential(), unknown, (c, level, noise) => {
      if (seen.at(-1)?.[1] !== noise) seen.push([level, noise]);
      return errorOf(c, level);
    });
    expect(seen).toEqual(seen.map((__, k) => [k, k]));
  });

  it('visit a sorted grid in an order that covers it early', () => {
    for (const direction of [1, -1]) {
      const levels = Array.from({ length: 24 }, (__, t) => ({ t: direction * t, weight: 1 }));
      const { visited } = trialOf({}, world.errorOf(3).errorOf, { ...unknown, levels });
      const ts = visited.slice(0, 4).map((level) => direction * levels[level]!.t);
      expect(Math.max(...ts) - Math.min(...ts)).toBeGreaterThan(11);
    }
  });

  it('depend neither on the unit of the errors nor on terms common to all candidates (t-test)', () => {
    for (let image = 0; image < 40; image++) {
      const { errorOf } = world.errorOf(image);
      const rounded = (c: number, level: number) => Math.round(errorOf(c, level) * 2 ** 14) / 2 ** 14;
      const plain = trialOf({}, rounded);
      const moved = trialOf({}, (c, level) => 4 * (rounded(c, level) + level));
      expect([moved.survivors, moved.visited, moved.evaluations]).toEqual([
        plain.survivors,
        plain.visited,
        plain.evaluations,
      ]);
    }
  });

  it('do not depend on the order of the candidates', () => {
    for (let image = 0; image < 40; image++) {
      const { errorOf } = world.errorOf(image);
      const turned = trialOf({}, (c, level) => errorOf((c + 3) % 10, level));
      const plain = trialOf({}, errorOf);
      expect(turned.evaluations).toBe(plain.evaluations);
      expect((turned.survivors[0]! + 3) % 10).toBe(plain.survivors[0]);
    }
  });

  it('leave out levels of weight 0', () => {
    const levels = unknown.levels.map((level, l) => ({ ...level, weight: l % 3 === 0 ? 0 : 1 }));
    const { visited } = trialOf({ confidence: 0.999999 }, world.errorOf(1).errorOf, { ...unknown, levels });
    expect(visited.some((l) => l % 3 === 0)).toBe(false);
  });

  it('use weights: the answer at the end of the grid is that of the weighted mean', () => {
    const levels = unknown.levels.map((level, l) => ({ ...level, weight: 1 + (l % 5) }));
    const info = { ...unknown, levels };
    for (let image = 0; image < 20; image++) {
      const { errorOf } = linearGaussian({ spread: 0.05 }).errorOf(image);
      const exhaustive = runTrial(all(), info, errorOf);
      const trial = trialOf({ confidence: 1 - 1e-9 }, errorOf, info);
      expect(trial.survivors).toEqual([bestOf(exhaustive, exhaustive.survivors)]);
    }
  });

  it('are at a single level for one candidate, or for prompts of one class', () => {
    const prompts = ['a cat', 'a photo of a cat'].map((prompt) => ({ label: 'cat', classidx: 4, prompt }));
    const { errorOf } = world.errorOf(1);
    expect(trialOf({}, errorOf, { ...unknown, candidates: fakeCandidates(1) }).evaluations).toBe(1);
    expect(trialOf({}, errorOf, { ...unknown, candidates: prompts }).evaluations).toBe(2);
  });

  it('end for two equal prompts of one class, and leave two of different classes undecided', () => {
    const errorOf = (c: number, level: number) => (c < 2 ? 0.25 : 0.5) + 0.125 * hash(level, Math.max(c, 1));
    const candidates = (second: number) =>
      [0, second, 2, 3].map((classidx) => ({ label: `class ${classidx}`, classidx }));
    const same = trialOf({}, errorOf, { ...unknown, candidates: candidates(0) });
    expect(same.visited.length).toBeLessThan(12);
    const different = trialOf({}, errorOf, { ...unknown, candidates: candidates(1) });
    expect(different.visited.length).toBe(24);
    expect(verdict(different, 1)).toMatchObject({ label: 'class 0', decided: true });
  });

  it('are few if errors are exact', () => {
    expect(trialOf({}, (c) => 0.25 * c).evaluations).toBe(20);
    expect(trialOf({ kappa: 0.01 }, (c) => 0.25 * c).evaluations).toBe(10);
  });

  it('use the kappa of the options, or that of the model', () => {
    const { errorOf } = world.errorOf(5);
    const kappa = 0.125;
    const withKappa = trialOf({ kappa }, errorOf, { ...unknown, kappa: 100 });
    expect(withKappa).toEqual(trialOf({}, errorOf, { ...unknown, kappa }));
    expect(withKappa.evaluations).toBeLessThan(trialOf({}, errorOf, { ...unknown, kappa: 100 }).evaluations);
  });

  it('of a thousand candidates on a long grid need few rounds', () => {
    const levels = visitingOrder(500).map((t) => ({ t, weight: 1 }));
    const info = { candidates: fakeCandidates(1000), levels };
    let rounds = 0;
    const counting: ReturnType<typeof sequential> = (model) => {
      const decide = sequential()(model);
      return (trial) => {
        rounds++;
        return decide(trial);
      };
    };
    const errorOf = (c: number, level: number) => 0.01 * Math.sqrt(c) + 0.05 * gauss(c, level);
    const trial = runTrial(counting, info, errorOf);
    expect(trial.evaluations).toBeLessThan(100_000);
    expect(rounds).toBeLessThan(100);
  });
});

describe('rejects', () => {
  it.each([0, 1, -1, 1.5, Number.NaN])('a confidence of %d', (confidence) => {
    expect(() => sequential({ confidence })).toThrow(UsageError);
  });

  it.each([0, -1, Number.NaN])('a kappa of %d', (kappa) => {
    expect(() => sequential({ kappa })(linearGaussian().info)).toThrow(UsageError);
  });
});
