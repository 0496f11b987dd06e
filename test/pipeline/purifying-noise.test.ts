// A purification and the classifier after it take their noise from the same seed. They must not use the same noise: a
// classifier that uses the noise with which an image was purified measures that noise instead of the image.

import { expect, test } from 'vitest';
import { type Denoising, statesOf } from '../../src/pipeline/purifying/chain.ts';
import {
  type PurifyingOptions,
  purificationLevels,
  purificationSteps,
} from '../../src/pipeline/purifying/methods.ts';
import { seededNoise } from '../../src/pipeline/purifying/noise.ts';
import { addedSigmas, timestepSigmas, timesteps } from './fake-denoiser.ts';
import { SUMMARY } from './fake-folder.ts';

const LENGTH = 12;

/**
 * More noises than any classifier uses: it takes noise k at its k-th level, and further ones in every draw of an
 * attack.
 */
const MOST_OF_A_CLASSIFIER = 2 ** 31 - 1;

test.each<PurifyingOptions>([
  { method: 'lm-adam', steps: 3 },
  { method: 'lm-momentum', steps: 3 },
  { method: 'lm-residual', steps: 3 },
  { method: 'diffpure', tStar: 20 },
])('$method takes noises that no classifier takes', async (options) => {
  const isTimed = options.method === 'diffpure';
  const summary = isTimed ? { ...SUMMARY, timestepSigmas } : SUMMARY;
  const levels = purificationLevels(options)(summary);
  const { mixes } = isTimed
    ? timesteps(...levels.map(({ t }) => t!))
    : addedSigmas(...levels.map(({ sigma }) => sigma!));
  const taken: number[] = [];
  const seeded = seededNoise(0, LENGTH);
  const noise = {
    ...seeded,
    of(index: number) {
      taken.push(index);
      return seeded.of(index);
    },
  };
  const denoising: Denoising = {
    async lossGradient(x, _, index) {
      taken.push(index);
      return { error: 1, gradient: x };
    },
    predict: async (xt) => xt,
    pullBack: async (_, __, cotangent) => cotangent,
  };
  const steps = purificationSteps(options, { name: 'fake', mixes, noise });
  await statesOf(denoising, steps, new Float32Array(LENGTH).fill(0.1));
  expect(taken.length).toBeGreaterThan(2);
  for (const index of taken) {
    expect(index).toBeGreaterThan(MOST_OF_A_CLASSIFIER);
    expect(index).toBeLessThan(2 ** 32);
  }
});
