// Tests multi-head models against torch, and that one network run gives the errors of all classes of a view.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { costOf } from '../../src/graph/core/cost.ts';
import { denoiser } from '../../src/graph/evaluation/denoiser.ts';
import { trace } from '../../src/graph/evaluation/evaluation.ts';
import { splitByViews, viewsOf } from '../../src/graph/evaluation/views.ts';
import { type EvaluationBatch, NO_CLASS } from '../../src/graph/model.ts';
import { totalFlop } from '../../src/graph/models/describe.ts';
import { loadModel } from '../../src/graph/models/open-model.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { describeModel, openModel } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { openDevice } from '../../src/kernels/device/device.ts';
import { diffusionClassifier } from '../../src/pipeline/attacking/diffusion-classifier.ts';

const goldens = join(import.meta.dirname, '..', 'golden');

interface Golden {
  readonly timesteps: readonly number[];
  /** Errors [image][timestep][class]; the last class is no class. */
  readonly errors: readonly (readonly (readonly number[])[])[];
}

/** Returns every evaluation of the golden file, as (image, level, candidate). */
const evaluationsOf = ({ errors }: Golden) =>
  errors.flatMap((image, slot) =>
    image.flatMap((row, level) => row.map((error, candidate) => ({ slot, level, candidate, error }))),
  );

const batchOf = (
  list: readonly Omit<ReturnType<typeof evaluationsOf>[number], 'error'>[],
): EvaluationBatch => ({
  slot: Uint32Array.from(list, ({ slot }) => slot),
  candidate: Uint32Array.from(list, ({ candidate }) => candidate),
  level: Uint32Array.from(list, ({ level }) => level),
  noise: Uint32Array.from(list, ({ level }) => level),
});

/** Opens the golden model with its classes and, as the last candidate, no class. Its images are in slots 0 and 1. */
async function openGolden(name: string, batchSize: number) {
  const folder = join(goldens, `multihead-${name}`);
  const golden = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as Golden;
  const model = await openModel(folder, {
    noiseFile: join(folder, 'io.safetensors'),
    levels: () => golden.timesteps.map((t) => ({ t, weight: 1 })),
    candidates: ({ labels }) => [
      ...labels.map((label, classidx) => ({ label, classidx })),
      { label: 'nothing', classidx: NO_CLASS },
    ],
    batchSize,
    slots: 2,
  });
  const io = await openSafetensors(join(folder, 'io.safetensors'));
  const [x0, gradients] = [await io.readF32('x0'), await io.readF32('gradients')];
  await io.close();
  for (const slot of [0, 1])
    model.encode(slot, x0.slice((slot * x0.length) / 2, ((slot + 1) * x0.length) / 2));
  return { model, golden, x0, gradients };
}

describe.each(['null', 'plain'])('every evaluation equals torch, %s', (name) => {
  let opened: Awaited<ReturnType<typeof openGolden>>;
  beforeAll(async () => {
    opened = await openGolden(name, 40);
  });
  afterAll(() => opened.model.close());

  it('for all classes and for no class, to a relative 2e-4', async () => {
    const { model, golden } = opened;
    const expected = evaluationsOf(golden);
    const actual: number[] = [];
    for (let i = 0; i < expected.length; i += model.batchSize)
      actual.push(...(await model.errors(batchOf(expected.slice(i, i + model.batchSize)))));
    expect(expected.length).toBe(2 * 4 * model.candidates.length);
    expected.forEach(({ error }, i) => {
      expect(Math.abs(actual[i]! - error) / error).toBeLessThan(2e-4);
    });
  });

  it('with the same bytes alone, by class, and if few classes of many views are left', async () => {
    const { model, golden } = opened;
    const all = evaluationsOf(golden).slice(0, 20);
    const whole = [...(await model.errors(batchOf(all)))];
    const alone = [];
    for (const one of all) alone.push(...(await model.errors(batchOf([one]))));
    expect(alone).toEqual(whole);
    const byClass = [...all].sort((a, b) => a.candidate - b.candidate);
    const mixed = await model.errors(batchOf(byClass));
    expect(byClass.map((one, i) => [one, mixed[i]])).toEqual(
      byClass.map((one) => [one, whole[all.indexOf(one)]]),
    );
  });

  it('with gradients with respect to the image, of a head and without a class', async () => {
    const { model, gradients, golden } = opened;
    const none = model.candidates.length - 1;
    const made = await model.differentiable!.gradients(
      batchOf([
        { slot: 0, level: 0, candidate: 1 },
        { slot: 0, level: 0, candidate: none },
      ]),
    );
    expect(made.errors[1]! / golden.errors[0]![0]![none]!).toBeCloseTo(1, 3);
    const scale = Math.max(...gradients.map(Math.abs));
    expect(made.gradients.length).toBe(gradients.length);
    gradients.forEach((expected, i) => {
      expect(Math.abs(made.gradients[i]! - expected) / scale).toBeLessThan(1e-4);
    });
  });

  it("with gradients of weighted sums of a view's errors from one backward pass, in any batch", async () => {
    const { model, x0 } = opened;
    const { gradients, viewGradients } = model.differentiable!;
    const classes = model.candidates.length;
    const length = x0.length / 2;
    const slot = Uint32Array.of(0, 1, 0);
    const level = Uint32Array.of(3, 0, 1);
    const views = { slot, level, noise: level };
    // The first view sums over all candidates, the second over one, the third over two.
    const view = Uint32Array.from([...model.candidates.map(() => 0), 1, 2, 2]);
    const candidate = Uint32Array.from([...model.candidates.keys(), 1, classes - 1, 0]);
    const weight = Float32Array.from(view, (_, i) => (i % 3) - 0.7);
    const rows = await gradients({
      slot: view.map((at) => slot[at]!),
      level: view.map((at) => level[at]!),
      noise: view.map((at) => level[at]!),
      candidate,
    });
    const expected = new Float64Array(3 * length);
    view.forEach((at, i) => {
      for (let k = 0; k < length; k++)
        expected[at * length + k]! += weight[i]! * rows.gradients[i * length + k]!;
    });
    const actual = await viewGradients!(views, { view, candidate, weight });
    expect(actual).toHaveLength(expected.length);
    const scale = Math.max(...expected.map(Math.abs));
    expected.forEach((value, k) => {
      expect(Math.abs(actual[k]! - value) / scale).toBeLessThan(1e-5);
    });
    const many = 70; // more than a run has views
    const repeat = (values: Uint32Array) => Uint32Array.from({ length: many }, (_, i) => values[i % 3]!);
    const crowd = { slot: repeat(slot), level: repeat(level), noise: repeat(level) };
    const parts = Array.from({ length: many }, (_, at) => [...view.keys()].filter((i) => view[i] === at % 3));
    const together = await viewGradients!(crowd, {
      view: Uint32Array.from(parts.flatMap((part, at) => part.map(() => at))),
      candidate: Uint32Array.from(parts.flatMap((part) => part.map((i) => candidate[i]!))),
      weight: Float32Array.from(parts.flatMap((part) => part.map((i) => weight[i]!))),
    });
    for (const at of [0, 1, 2, 33, 34, 69])
      expect(together.subarray(at * length, (at + 1) * length)).toEqual(
        actual.subarray((at % 3) * length, ((at % 3) + 1) * length),
      );
  });

  it('with the same gradients in the classifier of attacks as of every evaluation by itself', async () => {
    const { model, x0 } = opened;
    const x = Float64Array.from(x0.subarray(0, x0.length / 2), (value) => (value + 1) / 2);
    const cotangent = (logits: Float64Array) => logits.map((_, c) => (c === 1 ? 1 : -0.2 * c));
    const whole = await diffusionClassifier(model).gradient!(x, 0, cotangent);
    const { viewGradients: _, ...each } = model.differentiable!;
    const apart = await diffusionClassifier({ ...model, differentiable: each }).gradient!(x, 0, cotangent);
    expect(whole.logits).toEqual(apart.logits);
    const scale = Math.max(...apart.gradient.map(Math.abs));
    apart.gradient.forEach((value, k) => {
      expect(Math.abs(whole.gradient[k]! - value) / scale).toBeLessThan(1e-5);
    });
  });
});

describe('views', () => {
  it('of ten classes of an image, level and noise cost one network run', async () => {
    const { network, evaluation, close } = await loadModel(folderFiles(join(goldens, 'multihead-null')), {
      batchSize: 80,
    });
    const flop = (samples: number) => costOf(trace(network, evaluation, samples, 1)).flop;
    expect(flop(10) / flop(1)).toBeLessThan(1.02);
    const traced: number[] = [];
    const counting = {
      ...network,
      shared: (...[graph, xt, level]: Parameters<NonNullable<typeof network.shared>>) => {
        traced.push(xt.shape[1]);
        return network.shared!(graph, xt, level);
      },
    };
    const model = await denoiser(await openDevice(), counting, evaluation);
    await close();
    expect(model.batchSize).toBe(80);
    expect(model.slots).toBe(8);
    expect(Math.max(...traced)).toBe(8);
    model.close();
  });

  it('differ if only their seeds differ', () => {
    const batch = batchOf([0, 0, 0].map((level, i) => ({ slot: 0, level, candidate: i })));
    expect(viewsOf({ ...batch, seed: BigUint64Array.of(1n, 1n, 2n) })).toEqual({
      view: Uint32Array.of(0, 0, 1),
      slot: Uint32Array.of(0, 0),
      level: Uint32Array.of(0, 0),
      noise: batch.noise.slice(0, 2),
      seed: BigUint64Array.of(1n, 2n),
    });
  });

  it('are split between runs in their order, if a batch has more than a run', () => {
    const batch = batchOf([0, 0, 1, 1, 0, 2, 3, 3].map((level, i) => ({ slot: 0, level, candidate: i })));
    const parts = splitByViews(batch, 2);
    expect(parts.map(({ candidate }) => [...candidate])).toEqual([
      [0, 1, 2, 3, 4],
      [5, 6, 7],
    ]);
    expect(parts.map((part) => viewsOf(part).slot.length)).toEqual([2, 2]);
    expect(splitByViews(batch, 4)).toHaveLength(1);
  });
});

it('is described as a multi-head model', async () => {
  const { model, problems, cost } = await describeModel(join(goldens, 'multihead-null'));
  expect(problems).toEqual([]);
  expect(model?.heads).toBe(11);
  // Ten classes at a level are one network run, of which ten heads are picked.
  expect(totalFlop(cost!, { evaluations: 10, views: 1 }) / cost!.flop).toBeLessThan(1.02);
});
