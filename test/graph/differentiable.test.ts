// Tests the gradients of a model against torch (test/golden/gradients.py), and that they depend neither on the batch in
// which they are computed nor on the memory that the model may use.

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DeviceLostError, UnsupportedError } from '../../src/errors.ts';
import { type EvaluationBatch, type Model, NO_CLASS } from '../../src/graph/model.ts';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { openModel } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { openDevice } from '../../src/kernels/device/device.ts';
import { maxDifference } from '../kernels/harness.ts';

const goldens = join(import.meta.dirname, '..', 'golden');
const LENGTH = 16 * 16;

interface Golden {
  readonly values: (name: string) => Float32Array;
  readonly levels: readonly { readonly t: number; readonly weight: number }[];
  readonly batch: EvaluationBatch;
  readonly images: Float32Array;
}

async function goldenOf(type: string): Promise<Golden> {
  const file = await openSafetensors(join(goldens, 'gradients', `errors-${type}.safetensors`));
  const values = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) if (name !== 'rows') values.set(name, await file.readF32(name));
  const bytes = await file.read('rows');
  await file.close();
  const cells = [...new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8)].map(Number);
  const rows = Array.from({ length: cells.length / 4 }, (_, i) => cells.slice(4 * i, 4 * i + 4));
  const images = await openSafetensors(join(goldens, 'errors-images', 'x0.safetensors'));
  const x0 = await images.readF32('x0');
  await images.close();
  const column = (of: (row: number[], i: number) => number) => Uint32Array.from(rows, of);
  return {
    values: (name) => values.get(name)!,
    levels: rows.map(([, , t]) => ({ t: t!, weight: 1 })),
    batch: {
      slot: column(([image]) => image!),
      candidate: column(([, candidate]) => (candidate! < 0 ? 10 : candidate!)),
      level: column((_, i) => i),
      noise: column(([, , , noise]) => noise!),
    },
    images: x0,
  };
}

/** Opens a golden model with its ten classes and no class as candidates, and encodes its images. */
async function open(type: string, golden: Golden, options: OpenModelOptions = {}): Promise<Model> {
  const model = await openModel(join(goldens, `errors-${type}`), {
    noiseFile: join(goldens, 'errors-noise.safetensors'),
    levels: () => golden.levels,
    candidates: ({ labels }) => [
      ...labels.map((label, classidx) => ({ label, classidx })),
      { label: '', classidx: NO_CLASS },
    ],
    batchSize: 8,
    ...options,
  });
  for (let slot = 0; slot < golden.images.length / LENGTH; slot++)
    model.encode(slot, golden.images.slice(slot * LENGTH, (slot + 1) * LENGTH));
  return model;
}

/** Returns the largest difference relative to the largest value of its row, over all rows. */
function worstRow(actual: Float32Array, expected: Float32Array): number {
  expect(actual.length).toBe(expected.length);
  const rows = Array.from({ length: expected.length / LENGTH }, (_, i) => {
    const row = (values: Float32Array) => values.subarray(i * LENGTH, (i + 1) * LENGTH);
    return maxDifference(row(actual), row(expected)).difference / Math.max(...row(expected).map(Math.abs));
  });
  return Math.max(...rows);
}

const rowsOf = ({ batch, images }: Golden): Float32Array => {
  const rows = new Float32Array(batch.slot.length * LENGTH);
  batch.slot.forEach((slot, i) => {
    rows.set(images.subarray(slot * LENGTH, (slot + 1) * LENGTH), i * LENGTH);
  });
  return rows;
};

describe('derivatives equal torch', () => {
  it.each([
    ['epsilon', 'l2'],
    ['epsilon', 'l1'],
    ['epsilon', 'huber'],
    ['v_prediction', 'l2'],
    ['sample', 'l2'],
  ] as const)('%s, %s', async (type, distance) => {
    const golden = await goldenOf(type);
    const model = await open(type, golden, { distance });
    const { gradients, predict, pullBack, mixes } = model.differentiable!;
    const made = await gradients(golden.batch);
    golden.values(`error.${distance}`).forEach((error, i) => {
      expect(Math.abs(made.errors[i]! / error - 1)).toBeLessThan(2e-4);
    });
    // The gradient of l1 consists of signs, and rounding decides the sign of a residual near 0.
    expect(worstRow(made.gradients, golden.values(`gradient.${distance}`))).toBeLessThan(
      distance === 'l1' ? 1e-3 : 1e-4,
    );
    if (distance === 'l2') {
      const { candidate, level } = golden.batch;
      const rows = { xt: golden.values('xt'), candidate, level };
      expect(worstRow(await predict(rows), golden.values('eps_hat'))).toBeLessThan(1e-4);
      const pulled = await pullBack({ ...rows, cotangent: rowsOf(golden) });
      expect(worstRow(pulled, golden.values('pulled'))).toBeLessThan(1e-4);
      expect(mixes).toHaveLength(golden.levels.length);
      for (const { a, b } of mixes) expect(a ** 2 + b ** 2).toBeCloseTo(1, 6);
    }
    model.close();
  });
});

const part = ({ slot, candidate, level, noise }: EvaluationBatch, from: number, to: number) => ({
  slot: slot.slice(from, to),
  candidate: candidate.slice(from, to),
  level: level.slice(from, to),
  noise: noise.slice(from, to),
});

describe('a gradient does not depend on its batch', () => {
  it('has the same bytes alone, together, in more than one batch, and within a budget of memory', async () => {
    const golden = await goldenOf('epsilon');
    const model = await open('epsilon', golden);
    const { gradients, gradientBatchSize } = model.differentiable!;
    expect(gradientBatchSize).toBe(8);
    // Calls that overlap are answered in their order.
    const order: string[] = [];
    const [whole, third] = await Promise.all([
      gradients(golden.batch).finally(() => order.push('whole')),
      gradients(part(golden.batch, 2, 3)).finally(() => order.push('third')),
    ]);
    expect(order).toEqual(['whole', 'third']);
    expect(new Set(whole.gradients).size).toBeGreaterThan(4 * LENGTH);
    expect(third.gradients).toEqual(whole.gradients.slice(2 * LENGTH, 3 * LENGTH));
    expect(third.errors[0]).toBe(whole.errors[2]);
    expect(whole.errors).toEqual(await model.errors(golden.batch));
    model.close();

    const cramped = await open('epsilon', golden, { batchSize: 2, slots: 3, gradientBytes: 1 });
    const again = await cramped.differentiable!.gradients(golden.batch);
    expect(again).toEqual(whole);
    cramped.close();
  });

  it('is computed in half the batch before anything is recomputed, if there is a budget', async () => {
    const golden = await goldenOf('epsilon');
    const sizes: number[] = [];
    for (const gradientBytes of [2 ** 30, 4_000_000]) {
      const model = await open('epsilon', golden, { batchSize: 32, gradientBytes });
      sizes.push(model.differentiable!.gradientBatchSize);
      model.close();
    }
    expect(sizes[0]).toBe(32);
    expect(sizes[1]).toBeLessThan(32);
    expect(sizes[1]).toBeGreaterThanOrEqual(8);
  });
});

describe('derivatives reject', () => {
  it('if the device is lost, and all later calls too', async () => {
    const golden = await goldenOf('epsilon');
    const device = await openDevice();
    const model = await open('epsilon', golden, { device: device.gpu });
    const { gradients } = model.differentiable!;
    await gradients(golden.batch);
    const pending = gradients(golden.batch);
    device.gpu.destroy();
    await expect(pending).rejects.toThrow(DeviceLostError);
    await expect(gradients(golden.batch)).rejects.toThrow(DeviceLostError);
    model.close();
  });

  it('if rows have another length', async () => {
    const golden = await goldenOf('epsilon');
    const model = await open('epsilon', golden);
    const { candidate, level } = golden.batch;
    const rows = { xt: golden.values('xt'), candidate, level };
    const { predict, pullBack } = model.differentiable!;
    await expect(predict({ ...rows, xt: rows.xt.subarray(1) })).rejects.toThrow(
      /xt: expected 1280 values \(5 images of 256\), got 1279/,
    );
    await expect(pullBack({ ...rows, cotangent: new Float32Array(256) })).rejects.toThrow(RangeError);
    model.close();
  });
});

describe('a model opened as unconditional', () => {
  const folder = (name: string) => join(goldens, name);
  const levels = () => [{ t: 500, weight: 1 }];

  it('has one candidate, the null class after the named ones', async () => {
    const golden = await goldenOf('epsilon');
    const [model, all] = [
      await open('epsilon', golden, { unconditional: true }),
      await open('epsilon', golden),
    ];
    expect(model.candidates).toEqual([{ label: '', classidx: NO_CLASS }]);
    const batch = part(golden.batch, 3, 4);
    const error = await model.errors({ ...batch, candidate: Uint32Array.of(0) });
    expect(error).toEqual(await all.errors({ ...batch, candidate: Uint32Array.of(10) }));
    model.close();
    all.close();
  });

  it('may have no classes at all, and then cannot classify', async () => {
    await expect(openModel(folder('unet2d-ddpm'), { levels })).rejects.toThrow(/has no classes/);
    const model = await openModel(folder('unet2d-ddpm'), { levels, unconditional: true, batchSize: 1 });
    model.encode(0, new Float32Array(3 * 32 * 32));
    const one = Uint32Array.of(0);
    const [error] = await model.errors({ slot: one, candidate: one, level: one, noise: one });
    expect(error).toBeGreaterThan(0);
    expect(model.candidates).toEqual([{ label: '', classidx: NO_CLASS }]);
    model.close();
  });

  it('is rejected if the network always needs a class', async () => {
    const opened = openModel(folder('unet2d-attn-conv'), { levels, unconditional: true });
    await expect(opened).rejects.toThrow(UnsupportedError);
    await expect(opened).rejects.toThrow(/no prediction without a class/);
  });
});
