// Tests whole evaluations against diffusers, and that they do not depend on the batch in which they run.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DeviceLostError, ModelError, OutOfMemoryError, UnsupportedError } from '../../src/errors.ts';
import { denoiser } from '../../src/graph/evaluation/denoiser.ts';
import type { EvaluationBatch, Model } from '../../src/graph/model.ts';
import { loadModel, type OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { openModel } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { openDevice } from '../../src/kernels/device/device.ts';

const goldens = join(import.meta.dirname, '..', 'golden');
const noiseFile = join(goldens, 'errors-noise.safetensors');
const folderOf = (type: string) => join(goldens, `errors-${type}`);

interface Run {
  readonly image: number;
  readonly loss: 'l2' | 'l1' | 'huber';
  readonly stages: readonly {
    readonly timesteps: readonly number[];
    readonly noise: readonly number[];
    readonly errors: Readonly<Record<string, readonly number[]>>;
  }[];
}

/** The images of the golden files, each [c, h, w]. */
async function images(): Promise<Float32Array[]> {
  const file = await openSafetensors(join(goldens, 'errors-images', 'x0.safetensors'));
  const [name, { shape }] = [...file.tensors][0]!;
  const values = await file.readF32(name);
  await file.close();
  const length = values.length / shape[0]!;
  return Array.from({ length: shape[0]! }, (_, i) => values.slice(i * length, (i + 1) * length));
}

interface Evaluation {
  readonly candidate: number;
  readonly level: number;
  readonly noise: number;
}

const batchOf = (evaluations: readonly Evaluation[], slot = 0): EvaluationBatch => ({
  slot: new Uint32Array(evaluations.length).fill(slot),
  candidate: Uint32Array.from(evaluations, ({ candidate }) => candidate),
  level: Uint32Array.from(evaluations, ({ level }) => level),
  noise: Uint32Array.from(evaluations, ({ noise }) => noise),
});

/** Returns the errors of any number of evaluations, in batches of at most `size`. */
async function errorsOf(model: Model, evaluations: readonly Evaluation[], size = model.batchSize) {
  const parts: Promise<Float32Array>[] = [];
  for (let i = 0; i < evaluations.length; i += size)
    parts.push(model.errors(batchOf(evaluations.slice(i, i + size))));
  return (await Promise.all(parts)).flatMap((part) => [...part]);
}

const types = readdirSync(goldens)
  .filter((name) => /^errors-(epsilon|v_prediction|sample)$/.test(name))
  .map((name) => name.slice('errors-'.length));

describe('every evaluation equals diffusers', () => {
  it('covers all three parametrisations', () => {
    expect(types.sort()).toEqual(['epsilon', 'sample', 'v_prediction']);
  });

  it.each(types)('%s: to a relative 2e-4, with the same noise', async (type) => {
    const runs = JSON.parse(readFileSync(join(folderOf(type), 'expected.json'), 'utf8')) as Run[];
    const pictures = await images();
    let compared = 0;
    for (const { image, loss, stages } of runs) {
      const timesteps = stages.flatMap((stage) => stage.timesteps);
      const model = await openModel(folderOf(type), {
        noiseFile,
        distance: loss,
        batchSize: 64,
        levels: () => timesteps.map((t) => ({ t, weight: 1 })),
      });
      model.encode(0, pictures[image]!);
      const expected = stages.flatMap(({ timesteps: ts, noise, errors }) =>
        Object.entries(errors).flatMap(([candidate, values]) =>
          values.map((error, i) => ({
            candidate: Number(candidate),
            level: timesteps.indexOf(ts[i]!),
            noise: noise[i]!,
            error,
          })),
        ),
      );
      const actual = await errorsOf(model, expected);
      model.close();
      expected.forEach(({ error }, i) => {
        expect(Math.abs(actual[i]! - error) / error).toBeLessThan(2e-4);
      });
      compared += expected.length;
    }
    expect(compared).toBeGreaterThan(500);
  });
});

const open = (options: OpenModelOptions = {}) =>
  openModel(folderOf('epsilon'), { batchSize: 32, ...options });

describe('an evaluation does not depend on its batch', () => {
  it.each([undefined, 'plain', 'tile'] as const)(
    'has the same bytes in batches of 1, 7 and 32, family %s',
    async (family) => {
      const model = await open(family ? { device: { family } } : {});
      for (const [slot, image] of (await images()).entries()) model.encode(slot, image);
      const evaluations = Array.from({ length: 50 }, (_, i) => ({
        candidate: i % 10,
        level: (i * 7) % 25,
        noise: i % 5,
      }));
      const whole = await errorsOf(model, evaluations);
      expect(new Set(whole).size).toBeGreaterThan(40);
      expect(await errorsOf(model, evaluations, 1)).toEqual(whole);
      expect(await errorsOf(model, evaluations, 7)).toEqual(whole);
      const reversed = await errorsOf(model, [...evaluations].reverse());
      expect(reversed.reverse()).toEqual(whole);
      model.close();
    },
  );

  it('runs overlapping batches in order', async () => {
    const model = await open();
    const [image] = await images();
    model.encode(0, image!);
    const one = [{ candidate: 3, level: 4, noise: 0 }];
    const [first, second, third] = await Promise.all(
      [one, [{ candidate: 4, level: 4, noise: 0 }], one].map((e) => errorsOf(model, e)),
    );
    expect(first).toEqual(third);
    expect(first).not.toEqual(second);
    model.close();
  });

  it('takes its noise from the seed of the model', async () => {
    const evaluations = [{ candidate: 0, level: 0, noise: 0 }];
    const errors = [];
    for (const seed of [0, 0, 1]) {
      const model = await open({ seed });
      model.encode(0, (await images())[0]!);
      errors.push((await errorsOf(model, evaluations))[0]);
      model.close();
    }
    expect(errors[0]).toBe(errors[1]);
    expect(errors[0]).not.toBe(errors[2]);
  });

  it('takes its noise from its own seed, in a batch of evaluations with other seeds', async () => {
    const x0 = (await images())[0]!;
    const evaluations = [0, 1, 2].map((level) => ({ candidate: 1, level, noise: level }));
    const seeds = [0n, 7n, 2n ** 40n + 1n];
    const alone = [];
    for (const [i, seed] of seeds.entries()) {
      const model = await open({ seed });
      model.encode(0, x0);
      alone.push((await errorsOf(model, [evaluations[i]!]))[0]);
      model.close();
    }
    const model = await open({ seed: 7n });
    model.encode(0, x0);
    const together = await model.errors({ ...batchOf(evaluations), seed: BigUint64Array.from(seeds) });
    expect([...together]).toEqual(alone);
    const { errors } = await model.differentiable!.gradients({
      ...batchOf(evaluations),
      seed: BigUint64Array.from(seeds),
    });
    expect([...errors]).toEqual([...together].map((error) => expect.closeTo(error, 5)));
    model.close();
  });
});

describe('a device that fails', () => {
  it('by being lost during a batch makes this batch and the next reject; a new model gives the same errors', async () => {
    const device = await openDevice();
    const model = await open({ device: device.gpu });
    const image = (await images())[0]!;
    model.encode(0, image);
    const evaluations = [{ candidate: 1, level: 2, noise: 0 }];
    const before = await errorsOf(model, evaluations);
    const pending = errorsOf(model, evaluations);
    device.gpu.destroy();
    await expect(pending).rejects.toThrow(DeviceLostError);
    await expect(errorsOf(model, evaluations)).rejects.toThrow(DeviceLostError);
    model.close();
    const again = await open();
    again.encode(0, image);
    expect(await errorsOf(again, evaluations)).toEqual(before);
    again.close();
  });

  it('by lack of memory gets half the batch, as often as needed', async () => {
    const { network, evaluation, close } = await loadModel(folderFiles(folderOf('epsilon')), {
      batchSize: 64,
    });
    const device = await openDevice();
    const cramped = (maxBindingBytes: number) => ({
      ...device,
      capabilities: { ...device.capabilities, maxBindingBytes },
    });
    const model = await denoiser(cramped(1_000_000), network, evaluation);
    expect(model.batchSize).toBeLessThan(64);
    expect(model.batchSize).toBeGreaterThan(1);
    await expect(denoiser(cramped(1000), network, evaluation)).rejects.toThrow(OutOfMemoryError);
    await close();
    model.close();
  });

  it('is not closed by the model if the host passed it in', async () => {
    const device = await openDevice();
    (await open({ device: device.gpu })).close();
    expect(device.isLost()).toBe(false);
    await expect(device.gpu.queue.onSubmittedWorkDone()).resolves.toBeUndefined();
    device.close();
  });
});

describe('a model rejects', () => {
  it('a timestep outside its schedule', async () => {
    await expect(open({ levels: () => [{ t: 1000, weight: 1 }] })).rejects.toThrow(UnsupportedError);
  });
  it('a noise file with too few noises for the grid, or with noises of another shape', async () => {
    const levels = () => Array.from({ length: 900 }, (_, t) => ({ t, weight: 1 }));
    await expect(open({ noiseFile, levels })).rejects.toThrow(
      /expected at least one noise per level, 900, got/,
    );
    const weights = join(folderOf('epsilon'), 'unet', 'diffusion_pytorch_model.safetensors');
    await expect(open({ noiseFile: weights })).rejects.toThrow(ModelError);
  });
  it('a batch larger than its batch size, and an image of another size', async () => {
    const model = await open();
    await expect(model.errors(batchOf(Array(33).fill({ candidate: 0, level: 0, noise: 0 })))).rejects.toThrow(
      RangeError,
    );
    expect(() => model.encode(0, new Float32Array(3))).toThrow(RangeError);
    model.close();
  });
});
