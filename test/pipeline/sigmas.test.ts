// Tests that strategies drop classes correctly across sigmas whose weights differ by ten orders of magnitude, in a
// world in which every error can be computed.

import { describe, expect, it } from 'vitest';
import type { Level } from '../../src/graph/model.ts';
import { importanceLevels, rdcLevels } from '../../src/graph/sigmas.ts';
import { bitReversed, gridShare } from '../../src/graph/visiting.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { sequential } from '../../src/pipeline/deciding/sequential.ts';
import { bestOf, type ModelInfo, type Strategy } from '../../src/pipeline/deciding/trial.ts';
import { fakeCandidates, gauss, hash, runTrial } from './fake-model.ts';

const CLASSES = 10;
const DIMENSIONS = 48;
/** Standard deviations of the data in its dimensions: fine and coarse detail, as in images. */
const SCALES = Array.from({ length: DIMENSIONS }, (_, j) => 0.5 * 10 ** ((-2 * j) / (DIMENSIONS - 1)));

/**
 * Classes are Gaussians of the same covariance, and the network is their best denoiser:
 * D(x_s; s, c) = mu_c + tau² / (tau² + s²) (x_s - mu_c), for each dimension. Errors are those of images.
 */
function world(image: number, spread: number, levels: readonly Level[]) {
  const means = Array.from({ length: CLASSES }, (_, c) =>
    SCALES.map((tau, j) => spread * tau * gauss(image, c, j, 1)),
  );
  const truth = Math.floor(hash(image, 99) * CLASSES);
  const x = SCALES.map((tau, j) => means[truth]![j]! + tau * gauss(image, j, 2));
  const errors = levels.map(({ sigma }) => {
    const s = sigma!;
    const noise = x.map((_, j) => s * gauss(image, j, Math.round(s * 1e6), 3));
    return means.map((mean) => {
      const square = (j: number) => {
        const keep = SCALES[j]! ** 2 / (SCALES[j]! ** 2 + s * s);
        return (mean[j]! + keep * (x[j]! + noise[j]! - mean[j]!) - x[j]!) ** 2;
      };
      return x.reduce((sum, _, j) => sum + square(j), 0) / DIMENSIONS;
    });
  });
  return { truth, errorOf: (c: number, level: number) => errors[level]![c]! };
}

interface Outcome {
  readonly agreement: number;
  readonly accuracy: number;
  readonly share: number;
}

/** Returns the agreement with the answer of the whole grid and with the truth, and the share of the evaluations. */
function measure(levels: readonly Level[], spread: number, images: number, strategy: Strategy): Outcome {
  const info: ModelInfo = { candidates: fakeCandidates(CLASSES), levels };
  let [agreement, accuracy, share] = [0, 0, 0];
  for (let image = 0; image < images; image++) {
    const { truth, errorOf } = world(image, spread, levels);
    const exhaustive = runTrial(all(), info, errorOf);
    const trial = runTrial(strategy, info, errorOf);
    const label = bestOf(trial, trial.survivors);
    agreement += Number(label === bestOf(exhaustive, exhaustive.survivors)) / images;
    accuracy += Number(label === truth) / images;
    share += trial.evaluations / exhaustive.evaluations / images;
  }
  return { agreement, accuracy, share };
}

const IMAGES = Number(process.env.TRIAL_IMAGES ?? 60);
const slack = (confidence: number) => 3 * Math.sqrt((confidence * (1 - confidence)) / IMAGES);
const grid = rdcLevels();

describe("RDC's grid", () => {
  describe.each([0.6, 0.25])('classes %d standard deviations apart in every dimension', (spread) => {
    it.each([0.9, 0.99])(
      'gives the answer of the whole grid at confidence %d, with fewer evaluations',
      (confidence) => {
        const actual = measure(grid, spread, IMAGES, sequential({ confidence }));
        if (process.env.TRIAL_IMAGES) console.log(spread, confidence, actual);
        expect(actual.agreement).toBeGreaterThanOrEqual(confidence - slack(confidence));
        expect(actual.share).toBeLessThan(0.5);
      },
    );
  });

  it('needs fewer evaluations if visited by mass than by index', () => {
    const byIndex = bitReversed(grid.length, 0.25).map((l) => grid[l]!);
    const strategy = sequential({ confidence: 0.95 });
    const [mass, index] = [grid, byIndex].map((levels) => measure(levels, 0.6, IMAGES, strategy));
    if (process.env.TRIAL_IMAGES) console.log({ mass, index });
    expect(mass!.share).toBeLessThan(0.8 * index!.share);
  });

  it('finds the same classes with a third of the sigmas, placed by importance', () => {
    const whole = measure(grid, 0.6, IMAGES, all());
    const third = measure(importanceLevels(42, 'rdc-code'), 0.6, IMAGES, all());
    if (process.env.TRIAL_IMAGES) console.log({ whole, third });
    expect(third.accuracy).toBeGreaterThan(whole.accuracy - 0.1);
  });
});

it('the unit of the weights does not matter', () => {
  const scaled = grid.map((level) => ({ ...level, weight: level.weight * 1024 }));
  for (let image = 0; image < 10; image++) {
    const { errorOf } = world(image, 0.4, grid);
    const info = { candidates: fakeCandidates(CLASSES), levels: grid };
    const plain = runTrial(sequential(), info, errorOf);
    const other = runTrial(sequential(), { ...info, levels: scaled }, errorOf);
    expect([other.visited, other.survivors]).toEqual([plain.visited, plain.survivors]);
  }
});

it('a level with almost all the weight decides, however many others there are', () => {
  const levels = Array.from({ length: 40 }, (_, t) => ({ t, weight: t === 17 ? 1e6 : 1 }));
  const info = { candidates: fakeCandidates(3), levels };
  // Class 0 is best at level 17 by 0.01, and class 1 by 0.5 everywhere else.
  const errorOf = (c: number, level: number) =>
    level === 17 ? 0.01 * c : 0.5 * Math.abs(c - 1) + 0.01 * gauss(c, level);
  const trial = runTrial(sequential({ confidence: 0.999 }), info, errorOf);
  expect(trial.visited[0]).toBe(17);
  expect(trial.survivors).toEqual([0]);
  expect(gridShare(levels[17]!)).toBe(1e6);
});
