// Tests a diffusion model as a classifier to attack, alone and after a purification, against closed forms and
// differences.

import { describe, expect, test } from 'vitest';
import type { Defended } from '../../../src/pipeline/attacking/defended.ts';
import { diffusionClassifier } from '../../../src/pipeline/attacking/diffusion-classifier.ts';
import { crossEntropy, dlr } from '../../../src/pipeline/attacking/losses.ts';
import { purified } from '../../../src/pipeline/attacking/purified-classifier.ts';
import { randomOf } from '../../../src/pipeline/attacking/random.ts';
import type { Denoising, PurificationStep } from '../../../src/pipeline/purifying/chain.ts';
import { hash } from '../fake-model.ts';
import { smoothModel, weightAt } from './fake-classifiers.ts';

const imageOf = (key: string): Float64Array => {
  const random = randomOf(1, key, 'image');
  return Float64Array.from({ length: 16 }, () => random.uniform());
};

/** Compares a gradient with central differences of its loss, on a model in f32. */
async function check(defended: Defended, x: Float64Array, draw: number) {
  for (const loss of [crossEntropy(1), dlr(1)]) {
    const { gradient, logits } = await defended.gradient!(x, draw, (z) => loss(z).gradient);
    expect(logits).toEqual(await defended.logits(x, draw));
    const most = gradient.reduce((max, g) => Math.max(max, Math.abs(g)), 0);
    for (let i = 0; i < x.length; i++) {
      const at = async (h: number) =>
        loss(
          await defended.logits(
            x.map((v, j) => (i === j ? v + h : v)),
            draw,
          ),
        ).value;
      const difference = ((await at(0.01)) - (await at(-0.01))) / 0.02;
      expect(Math.abs(gradient[i]! - difference)).toBeLessThanOrEqual(5e-3 * most);
    }
  }
}

describe('the classifier', () => {
  test('has weighted mean errors over the temperature as logits; noise indices continue over draws', async () => {
    const model = smoothModel();
    const x = imageOf('a');
    const weights = [1, 2, 0.5, 0, 1.5, 1];
    for (const draw of [0, 3]) {
      const logits = await diffusionClassifier(model).logits(x, draw);
      for (let c = 0; c < 4; c++) {
        const p = x.reduce((sum, v, i) => sum + weightAt(c, i) * (2 * v - 1), 0) / 16;
        const errors = weights.map((_, l) => 0.5 + (1 + 0.3 * hash(l, 6 * draw + l, 3)) * (p + p * p));
        const mean = errors.reduce((sum, error, l) => sum + (weights[l]! * error) / 6, 0);
        expect(logits[c]!).toBeCloseTo(-mean / 0.05, 4);
      }
    }
  });

  test('has gradients of the logits, and computes only those of classes and levels with a weight', async () => {
    const model = smoothModel();
    const classifier = diffusionClassifier(model);
    await check(classifier, imageOf('b'), 2);
    model.gradientRows = 0;
    await classifier.gradient!(imageOf('b'), 0, () => Float64Array.of(0, 1, 0, -1));
    expect(model.gradientRows).toBe(2 * 5); // two classes, five levels with a weight
  });

  test('returns the same bytes in any batch', async () => {
    const alone = diffusionClassifier(smoothModel({ batchSize: 1, slots: 1 }));
    const shared = diffusionClassifier(smoothModel({ batchSize: 64, slots: 2 }));
    const keys = ['a', 'b', 'c', 'd', 'e'];
    const ask = (classifier: Defended) => (key: string) =>
      classifier.gradient!(imageOf(key), 1, (z) => crossEntropy(0)(z).gradient);
    const together = await Promise.all(keys.map(ask(shared)));
    for (const [i, key] of keys.entries()) expect(together[i]).toEqual(await ask(alone)(key));
  });

  test('with levels per draw: consecutive draws cover the whole grid, with its own noise', async () => {
    const model = smoothModel({ weights: [1] });
    const whole = await diffusionClassifier(model).logits(imageOf('p'), 0);
    const part = diffusionClassifier(model, { levelsPerDraw: 2 });
    expect(part.period).toBe(3);
    const parts = await Promise.all([0, 1, 2].map((draw) => part.logits(imageOf('p'), draw)));
    for (const [c, logit] of whole.entries())
      expect(parts.reduce((sum, row) => sum + row[c]! / 3, 0)).toBeCloseTo(logit, 10);
    expect(await part.logits(imageOf('p'), 3)).not.toEqual(parts[0]);
  });

  test('an error of the device rejects all pending calls', async () => {
    const model = smoothModel({ delay: () => Promise.reject(new Error('gone')) });
    const classifier = diffusionClassifier(model);
    const answers = ['a', 'b', 'c', 'd'].map((key) => classifier.logits(imageOf(key), 0));
    for (const answer of await Promise.allSettled(answers))
      expect(answer).toMatchObject({ status: 'rejected' });
  });
});

/** x -> tanh(A x) in [-1, 1], where A is a matrix near 1 that differs between draws. */
const matrix = (draw: number, i: number, j: number) => (i === j ? 0.8 : 0) + 0.1 * (hash(i, j, draw) - 0.5);
const steps = (draw: number): PurificationStep[] => {
  const through = (x: Float32Array) =>
    Float64Array.from(x, (_, i) => x.reduce((sum, v, j) => sum + matrix(draw, i, j) * v, 0));
  return [
    {
      forward: async (_, { x }) => ({ x: Float32Array.from(through(x), Math.tanh) }),
      async pullBack(_, { x }, after) {
        const inner = through(x).map((v, i) => (1 - Math.tanh(v) ** 2) * after.x![i]!);
        return { x: inner.map((__, j) => inner.reduce((sum, v, i) => sum + matrix(draw, i, j) * v, 0)) };
      },
    },
  ];
};

describe('after a purification', () => {
  const denoising = {} as Denoising;
  const purifier = { denoising, stepsOf: steps };
  const classifier = diffusionClassifier(smoothModel());

  test('full: the gradient goes through the steps by the chain rule', async () => {
    await check(purified(classifier, purifier, 'full'), imageOf('f'), 0);
    await check(purified(classifier, purifier, 'full'), imageOf('f'), 4);
  });

  test('identity: the gradient at the purified image is used as that at the image', async () => {
    const x = imageOf('i');
    const defended = purified(classifier, purifier, 'identity');
    const cotangent = (z: Float64Array) => crossEntropy(1)(z).gradient;
    const { x: clean } = await steps(2)[0]!.forward(denoising, { x: Float32Array.from(x, (v) => 2 * v - 1) });
    const unit = Float64Array.from(clean, (v) => (v + 1) / 2);
    const at = await classifier.gradient!(unit, 2, cotangent);
    expect(await defended.gradient!(x, 2, cotangent)).toEqual(at);
    const full = await purified(classifier, purifier, 'full').gradient!(x, 2, cotangent);
    expect(full.logits).toEqual(at.logits);
    expect(full.gradient).not.toEqual(at.gradient);
  });
});
