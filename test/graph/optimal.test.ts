// Tests the closed-form denoiser against its definition in f64, and on its own training images.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../src/errors.ts';
import { type EvaluationBatch, type Model, NO_CLASS } from '../../src/graph/model.ts';
import { describeModel, openModel, readModel } from '../../src/graph/node/open-model.ts';
import { writeSafetensors } from '../../src/graph/node/write-safetensors.ts';
import { randomValues } from '../kernels/harness.ts';

const SHAPE = [2, 3, 5] as const;
const LENGTH = 30;
const LABELS = [1, 0, 2, 1, 1, 0, 2, 0, 1, 1, 0];
const SIGMAS = [0.3, 1, 4];
const NOISES = randomValues(SIGMAS.length * LENGTH, 3).map((v) => 2 * v);

let root: string;
let bytes: Uint8Array;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'optimal-'));
  bytes = Uint8Array.from(randomValues(LABELS.length * LENGTH, 1), (v) => Math.floor((v + 1) * 128));
  await write('set', bytes, Uint8Array.from(LABELS));
  await writeSafetensors(join(root, 'noise.safetensors'), [
    ['noise', { dtype: 'F32', shape: [SIGMAS.length, ...SHAPE], data: NOISES }],
  ]);
});
afterAll(() => rm(root, { recursive: true }));

async function write(
  name: string,
  images: Uint8Array,
  labels: Uint8Array,
  id2label: object = { 0: 'a', 1: 'b', 2: 'c' },
) {
  const data = `${name}.safetensors`;
  await writeSafetensors(join(root, data), [
    ['images', { dtype: 'U8', shape: [labels.length, ...SHAPE], data: images }],
    ['labels', { dtype: 'U8', shape: [labels.length], data: labels }],
  ]);
  const folder = join(root, name);
  await import('node:fs/promises').then(({ mkdir }) => mkdir(folder, { recursive: true }));
  await writeFile(
    join(folder, 'config.json'),
    JSON.stringify({ _class_name: 'OptimalDenoiser', data: `../${data}`, id2label }),
  );
  return folder;
}

const trainingImage = (i: number) =>
  Float64Array.from(bytes.subarray(i * LENGTH, (i + 1) * LENGTH), (v) => v / 127.5 - 1);
const square = (d: Float64Array) => d.reduce((sum, v) => sum + v * v, 0);

/** Returns D(x_t; c) in f64, by its definition; c = -1 for no class. */
function reference(xt: Float64Array, sigma: number, c: number): Float64Array {
  const own = LABELS.flatMap((label, i) => (c === NO_CLASS || label === c ? [trainingImage(i)] : []));
  const logits = own.map((x) => -square(xt.map((v, k) => v - x[k]!)) / (2 * sigma ** 2));
  const top = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - top));
  const total = weights.reduce((sum, w) => sum + w, 0);
  return xt.map((_, k) => own.reduce((sum, x, i) => sum + weights[i]! * x[k]!, 0) / total);
}

const noised = (x0: ArrayLike<number>, level: number) =>
  Float64Array.from(x0, (v, k) => v + SIGMAS[level]! * NOISES[level * LENGTH + k]!);

/** Returns mean |eps - eps_hat|². */
function errorOf(x0: ArrayLike<number>, level: number, c: number): number {
  const xt = noised(x0, level);
  const d = reference(xt, SIGMAS[level]!, c);
  return square(Float64Array.from(x0, (v, k) => (d[k]! - v) / SIGMAS[level]!)) / LENGTH;
}

const CLASSES = [0, 1, 2, NO_CLASS];
const everything = SIGMAS.flatMap((_, level) => CLASSES.map((_, candidate) => ({ level, candidate })));
const batch: EvaluationBatch = {
  slot: new Uint32Array(everything.length),
  candidate: Uint32Array.from(everything, ({ candidate }) => candidate),
  level: Uint32Array.from(everything, ({ level }) => level),
  noise: Uint32Array.from(everything, ({ level }) => level),
};

const open = (folder = join(root, 'set'), family?: 'plain' | 'tile') =>
  openModel(folder, {
    noiseFile: join(root, 'noise.safetensors'),
    levels: () => SIGMAS.map((sigma) => ({ sigma, weight: 1 })),
    candidates: ({ labels }) => [
      ...labels.map((label, classidx) => ({ label, classidx })),
      { label: '', classidx: NO_CLASS },
    ],
    batchSize: 16,
    ...(family && { device: { family } }),
  });

describe.each([undefined, 'plain', 'tile'] as const)('the optimal denoiser, family %s', (family) => {
  let model: Model;
  const x0 = randomValues(LENGTH, 7);
  beforeAll(async () => {
    model = await open(undefined, family);
    model.encode(0, x0);
  });
  afterAll(() => model.close());

  it('has errors that equal the definition in f64', async () => {
    const actual = await model.errors(batch);
    everything.forEach(({ level, candidate }, i) => {
      expect(actual[i]! / errorOf(x0, level, CLASSES[candidate]!)).toBeCloseTo(1, 4);
    });
  });

  it('has gradients that equal finite differences of the definition', async () => {
    const { errors, gradients } = await model.differentiable!.gradients(batch);
    expect([...errors]).toEqual([...(await model.errors(batch))]);
    const h = 1e-5;
    everything.forEach(({ level, candidate }, i) => {
      const scale = Math.max(...gradients.subarray(i * LENGTH, (i + 1) * LENGTH).map(Math.abs));
      for (let k = 0; k < LENGTH; k += 7) {
        const moved = (by: number) => Float64Array.from(x0, (v, at) => v + (at === k ? by : 0));
        // The error compares noises, so it depends on the image only through x_t.
        const at = (by: number) => {
          const xt = noised(moved(by), level);
          const d = reference(xt, SIGMAS[level]!, CLASSES[candidate]!);
          const eps = NOISES.subarray(level * LENGTH, (level + 1) * LENGTH);
          return square(xt.map((v, j) => (v - d[j]!) / SIGMAS[level]! - eps[j]!)) / LENGTH;
        };
        const slope = (at(h) - at(-h)) / (2 * h);
        expect(Math.abs(gradients[i * LENGTH + k]! - slope) / scale).toBeLessThan(1e-3);
      }
    });
  });
});

it('is the nearest neighbour and predicts its image, if each class has one image', async () => {
  const firsts = [1, 0, 2].map((i) => bytes.slice(i * LENGTH, (i + 1) * LENGTH));
  const folder = await write(
    'nearest',
    Uint8Array.from(firsts.flatMap((one) => [...one])),
    Uint8Array.from([0, 1, 2]),
  );
  const model = await open(folder);
  const x0 = randomValues(LENGTH, 9);
  model.encode(0, x0);
  const errors = await model.errors(batch);
  const distance = (c: number) => square(Float64Array.from(x0, (v, k) => v - (firsts[c]![k]! / 127.5 - 1)));
  for (const c of [0, 1, 2]) {
    // eps - eps_hat = (D - x0) / sigma, and D is the only image of the class for every noise.
    for (const [level, sigma] of SIGMAS.entries())
      expect(errors[level * 4 + c]! / (distance(c) / LENGTH / sigma ** 2)).toBeCloseTo(1, 4);
  }
  model.close();
});

it('can be opened as unconditional only', async () => {
  const model = await openModel(join(root, 'set'), {
    noiseFile: join(root, 'noise.safetensors'),
    levels: () => SIGMAS.map((sigma) => ({ sigma, weight: 1 })),
    unconditional: true,
    batchSize: 4,
  });
  const x0 = randomValues(LENGTH, 7);
  model.encode(0, x0);
  const one = new Uint32Array(1);
  const [error] = await model.errors({ slot: one, candidate: one, level: one, noise: one });
  expect(error! / errorOf(x0, 0, NO_CLASS)).toBeCloseTo(1, 4);
  model.close();
});

it('is described by its class; a view costs all classes once', async () => {
  const { pipeline, problems, cost } = await describeModel(join(root, 'set'));
  expect([pipeline, problems]).toEqual(['OptimalDenoiser', []]);
  expect(cost!.sharedFlop! / cost!.flop).toBeGreaterThan(0.8);
});

describe('an invalid folder', () => {
  it('is rejected with the file and what was expected', async () => {
    expect((await readModel(join(root, 'set'))).labels).toEqual(['a', 'b', 'c']);
    const twoNames = await write('two', bytes, Uint8Array.from(LABELS), { 0: 'a', 1: 'b' });
    await expect(open(twoNames)).rejects.toThrow(
      /two\.safetensors: expected labels from 0 to 1, got 2 for image 2/,
    );
    const empty = await write('four', bytes, Uint8Array.from(LABELS), { 0: 'a', 1: 'b', 2: 'c', 3: 'd' });
    await expect(open(empty)).rejects.toThrow(/there is no image of class 3 \(d\)/);
    await writeFile(
      join(empty, 'config.json'),
      '{"_class_name":"OptimalDenoiser","data":"no.safetensors","id2label":{}}',
    );
    await expect(readModel(empty)).rejects.toThrow(ModelError);
  });
});
