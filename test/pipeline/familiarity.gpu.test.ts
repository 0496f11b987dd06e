import { expect, test } from 'vitest';
import { openModel } from '../../src/graph/node/open-model.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import { conversions } from '../../src/pipeline/images/conversions.ts';
import type { ImageInput } from '../../src/pipeline/images/image-input.ts';
import { loadImages } from '../../src/pipeline/node/load.ts';
import { findImages } from '../../src/pipeline/node/sources.ts';
import { type ItemFailure, isFailure } from '../../src/pipeline/types.ts';
import { hash } from './fake-model.ts';

const WEIGHTS = new URL('../../weights/', import.meta.url).pathname;

test('for the default model samples are familiar, noise and grey areas are not', async () => {
  const model = await openModel(`${WEIGHTS}fashion-mnist-multi-head`);
  expect(model.familiar?.falseAlarms).toBe(0.01);
  const raw = (path: string, value: (i: number) => number): ImageInput => ({
    path,
    data: Uint8Array.from({ length: 784 }, (_, i) => value(i)),
    width: 28,
    height: 28,
    channels: 1,
  });
  const source = async function* (): AsyncGenerator<ImageInput | ItemFailure> {
    yield* findImages([`${WEIGHTS}fashion-mnist/samples`]);
    for (let k = 0; k < 20; k++) yield raw(`noise ${k}`, (i) => Math.floor(256 * hash(k, i)));
    for (let k = 0; k < 20; k++) yield raw(`grey ${k}`, () => 20 + 10 * k);
  };
  const done = conversions(model.inputShape);
  const images = loadImages(source(), model.inputShape, { onDecoded: done.add });
  const seen = { samples: 0, noise: 0, grey: 0 };
  const marked = { samples: 0, noise: 0, grey: 0 };
  for await (const result of classifyImages(images, async () => model)) {
    if (isFailure(result)) throw new Error(`${result.path}: ${result.error.message}`);
    const kind = result.path.startsWith('noise')
      ? 'noise'
      : result.path.startsWith('grey')
        ? 'grey'
        : 'samples';
    seen[kind]++;
    if (result.unfamiliar) marked[kind]++;
  }
  expect(done.sentences()).toEqual([]);
  // At 1 % each, more than 4 of about 40 samples are flagged with a probability of 6e-5.
  expect(seen.samples).toBeGreaterThanOrEqual(30);
  expect(marked.samples).toBeLessThanOrEqual(4);
  expect(marked.noise).toBe(20);
  expect(marked.grey).toBeGreaterThanOrEqual(12);
});
