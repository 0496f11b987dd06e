// What the deciding rules promise, on random grids: the risks of all rounds add up to at most 1 - confidence, and the
// label is the exhaustive one at least as often as the confidence says.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { all } from '../../src/pipeline/deciding/all.ts';
import { sequential } from '../../src/pipeline/deciding/sequential.ts';
import { fakeCandidates, gauss, hash, runTrial } from '../pipeline/fake-model.ts';
import { LONG, runs } from './runs.ts';

/** A grid, candidates and their errors, all random. */
const worlds = fc.record({
  candidates: fc.integer({ min: 2, max: 12 }),
  weights: fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0.01, max: 10, noNaN: true })), {
    minLength: 2,
    maxLength: 40,
  }),
  gap: fc.double({ min: 0, max: 1, noNaN: true }),
  noise: fc.double({ min: 0.001, max: 1, noNaN: true }),
  image: fc.integer({ min: 0, max: 1e6 }),
  confidence: fc.double({ min: 0.5, max: 0.9999, noNaN: true }),
  kappa: fc.option(fc.double({ min: 1e-4, max: 1, noNaN: true }), { nil: undefined }),
});
type World = typeof worlds extends fc.Arbitrary<infer T> ? T : never;

/** Runs the sequential strategy on a world; also returns the risks of its rounds, in order. */
function decide({ candidates, weights, gap, noise, image, confidence, kappa }: World) {
  const levels = weights.map((weight, t) => ({ t: (t * 7919) % 1000, weight }));
  const errorOf = (c: number, level: number) => 0.5 + gap * c * 0.1 + noise * gauss(image, c, level);
  const risks: number[] = [];
  const strategy = sequential({ confidence, ...(kappa === undefined ? {} : { kappa }) });
  const recording: typeof strategy = (model) => {
    const bound = strategy(model);
    return (trial) => {
      const round = bound(trial);
      risks.push(round.risk ?? 0);
      return round;
    };
  };
  const model = { candidates: fakeCandidates(candidates), levels };
  return { trial: runTrial(recording, model, errorOf), risks, exhaustive: runTrial(all(), model, errorOf) };
}

describe('the sequential strategy', () => {
  test('the risks of all rounds add up to at most 1 - confidence, and the trial knows their sum', () => {
    fc.assert(
      fc.property(worlds, (world) => {
        const { trial, risks } = decide(world);
        const total = risks.reduce((sum, risk) => sum + risk, 0);
        for (const risk of risks) expect(risk).toBeGreaterThanOrEqual(0);
        expect(total).toBeLessThanOrEqual(1 - world.confidence + 1e-12);
        expect(trial.risk).toBeCloseTo(total, 12);
      }),
      runs(300),
    );
  });

  test('each round spends at most half of what the earlier rounds left', () => {
    fc.assert(
      fc.property(worlds, (world) => {
        let left = 1 - world.confidence;
        for (const risk of decide(world).risks) {
          expect(risk).toBeLessThanOrEqual(left / 2 + 1e-12);
          left -= risk;
        }
      }),
      runs(300),
    );
  });

  test('it ends decided, with one candidate, for no more evaluations than the exhaustive run', () => {
    fc.assert(
      fc.property(worlds, (world) => {
        const { trial, exhaustive } = decide(world);
        expect(trial.decided).toBe(true);
        expect(trial.survivors).toHaveLength(1);
        expect(trial.evaluations).toBeLessThanOrEqual(exhaustive.evaluations);
        expect(new Set(trial.visited).size).toBe(trial.visited.length);
      }),
      runs(300),
    );
  });
});

const CANDIDATES = 8;
const LEVELS = 32;
const KAPPA = 0.02;
const IMAGES = LONG ? 10_000 : 400;

/** Three standard errors of a share of few images; none for many, where the promise itself is measured. */
const slack = (confidence: number) => (LONG ? 0 : 3 * Math.sqrt((confidence * (1 - confidence)) / IMAGES));

/** The error of a candidate: a squared distance whose excess m over the true one's has variance kappa m. */
function simulated(image: number, c: number, level: number, closeness: number): number {
  const truth = Math.floor(hash(image, 1) * CANDIDATES);
  const common = 0.5 + 0.2 * gauss(image, level, 2);
  if (c === truth) return common;
  const excess = closeness * hash(image, c, 3);
  return common + excess + Math.sqrt(KAPPA * excess) * gauss(image, c, level);
}

/** The share of images whose label is not the exhaustive one. */
function disagreement(confidence: number, kappa: number | undefined, closeness: number): number {
  const model = {
    candidates: fakeCandidates(CANDIDATES),
    levels: Array.from({ length: LEVELS }, (_, k) => ({ t: (k * 13) % LEVELS, weight: 1 })),
    ...(kappa === undefined ? {} : { kappa }),
  };
  let wrong = 0;
  for (let image = 0; image < IMAGES; image++) {
    const errorOf = (c: number, level: number) => simulated(image, c, level, closeness);
    const sums = model.candidates.map((_, c) =>
      model.levels.reduce((sum, __, level) => sum + Math.fround(errorOf(c, level)), 0),
    );
    const { survivors } = runTrial(sequential({ confidence }), model, errorOf);
    if (survivors[0] !== sums.indexOf(Math.min(...sums))) wrong++;
  }
  return wrong / IMAGES;
}

describe(`the label is the exhaustive one, on ${IMAGES} simulated images`, () => {
  const cases = [0.9, 0.99].flatMap((confidence) =>
    [KAPPA, undefined].flatMap((kappa) =>
      [0.02, 0.2].map((closeness) => [confidence, kappa, closeness] as const),
    ),
  );
  test.each(cases)(
    'confidence %d, kappa %s, rivals within %d',
    { timeout: 600_000 },
    (confidence, kappa, closeness) => {
      expect(disagreement(confidence, kappa, closeness)).toBeLessThanOrEqual(
        1 - confidence + slack(confidence),
      );
    },
  );
});
