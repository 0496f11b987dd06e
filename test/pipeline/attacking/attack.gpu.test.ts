// Tests attacks on a real network on the device: gradients of its classifier, also through purifications, and the
// command.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { describeModel, openModel } from '../../../src/graph/node/open-model.ts';
import type { Defended } from '../../../src/pipeline/attacking/defended.ts';
import { diffusionClassifier } from '../../../src/pipeline/attacking/diffusion-classifier.ts';
import { dlr } from '../../../src/pipeline/attacking/losses.ts';
import { purified } from '../../../src/pipeline/attacking/purified-classifier.ts';
import { randomOf } from '../../../src/pipeline/attacking/random.ts';
import type { PurifyingOptions } from '../../../src/pipeline/purifying/methods.ts';
import { purificationLevels } from '../../../src/pipeline/purifying/methods.ts';
import { denoisingBy } from '../../../src/pipeline/stream/denoising.ts';
import { stepsBy } from '../../../src/pipeline/stream/purify-images.ts';
import { acquire } from '../../../src/pipeline/stream/sharing.ts';
import { cli } from '../captured-cli.ts';
import { temporaryFolder, write } from '../image-files.ts';

const GOLDEN = join(import.meta.dirname, '../../golden');
const FOLDER = join(GOLDEN, 'errors-epsilon');
const PNG = join(GOLDEN, 'errors-images/1.png');
const LABEL = 3;

const openClassifier = () =>
  openModel(FOLDER, { levels: () => [300, 100, 500].map((t) => ({ t, weight: 1 })), batchSize: 32 });

/** A grey image with a little noise: none of its values is clipped, because clipping has no derivative at its edges. */
const grey = (): Float64Array => {
  const random = randomOf(0, 'grey', 'test');
  return Float64Array.from({ length: 256 }, () => 0.5 + 0.05 * random.normal());
};

/** Returns the relative difference of a gradient and a central difference along a similar smooth direction. */
async function offAlong(defended: Defended, x: Float64Array): Promise<number> {
  const loss = dlr(LABEL);
  const { gradient } = await defended.gradient!(x, 0, (z) => loss(z).gradient);
  const random = randomOf(0, 'direction', 'test');
  const length = Math.hypot(...gradient);
  const noise = x.map(() => random.normal() / Math.sqrt(x.length));
  const direction = gradient.map((g, i) => g / length + 0.3 * noise[i]!);
  const at = async (h: number) =>
    loss(
      await defended.logits(
        x.map((v, i) => v + h * direction[i]!),
        0,
      ),
    ).value;
  const h = 0.03;
  const difference = ((await at(h)) - (await at(-h))) / (2 * h);
  const slope = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
  return Math.abs(difference / slope - 1);
}

describe('gradients on the device equal differences of its results', () => {
  test('the classifier', async () => {
    const model = await openClassifier();
    expect(await offAlong(diffusionClassifier(model), grey())).toBeLessThan(0.03);
    model.close();
  });

  test.each<PurifyingOptions>([
    { method: 'diffpure', tStar: 30, steps: 3 },
    { method: 'lm-momentum', norm: 'l2', steps: 2, eps: 0.5 },
    { method: 'lm-adam', steps: 2, stepSize: 0.02 },
  ])('through $method, in full', async (options) => {
    const model = await openClassifier();
    const { batcher, release } = await acquire((request) =>
      openModel(FOLDER, {
        unconditional: true,
        distance: 'l2',
        levels: purificationLevels(options),
        batchSize: 8,
        ...request,
      }),
    );
    const stepsOf = (draw: number) => stepsBy(batcher.model, { ...options, draw });
    const off = (mode: 'full' | 'identity') =>
      offAlong(
        purified(diffusionClassifier(model), { denoising: denoisingBy(batcher), stepsOf }, mode),
        grey(),
      );
    const [full, identity] = [await off('full'), await off('identity')];
    // Adam's first step has almost the sign of the gradient: it jumps if a gradient crosses 0.
    expect(full).toBeLessThan(options.method === 'lm-adam' ? 0.15 : 0.06);
    if (options.method !== 'lm-adam') expect(identity).toBeGreaterThan(2 * full);
    release();
    model.close();
  });
});

test('the command lowers the margin, more with a larger ball, and writes the images that it reports', async () => {
  const folder = temporaryFolder();
  write(folder, { 'labels.csv': `path,label\n${PNG},${LABEL}\n` });
  const attack = async (eps: number, ...more: string[]) => {
    const out = join(folder, `out-${eps}`);
    const argv = ['attack', PNG, '--model', FOLDER, '--truth', join(folder, 'labels.csv'), '--out', out];
    const rest = [
      '--attack',
      'apgd-dlr',
      '--steps',
      '6',
      '--timesteps',
      'even:3',
      '--eps',
      String(eps),
      ...more,
    ];
    const { status, err } = await cli([...argv, ...rest], openModel, '', describeModel);
    expect(err).not.toContain('cannot');
    expect(status).toBe(0);
    return JSON.parse(readFileSync(join(out, 'report.json'), 'utf8')).images[0];
  };
  const small = await attack(0.01);
  const large = await attack(0.25);
  expect(small.linf).toBeLessThanOrEqual(0.01);
  expect(large.linf).toBeLessThanOrEqual(0.25 + 1e-9);
  if (small.clean === 'class 3') expect(large.margin).toBeLessThan(small.margin);
  const purified = await attack(
    0.1,
    '--purify',
    'lm-momentum',
    '--purify-steps',
    '1',
    '--gradient',
    'identity',
  );
  expect(purified.linf).toBeLessThanOrEqual(0.1 + 1e-9);
});
