// Tests whole pipelines (tiny, with random weights) against diffusers and transformers: the error of every
// evaluation, from PNG files and with the same noise.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { denoiser } from '../../src/graph/evaluation/denoiser.ts';
import { textNetwork } from '../../src/graph/families/text/text-network.ts';
import type { TextConfig } from '../../src/graph/families/text/text-parts.ts';
import { openTensorFile } from '../../src/graph/files/safetensors.ts';
import { coefficients } from '../../src/graph/folders/schedule.ts';
import type { Candidate, EvaluationBatch, Model } from '../../src/graph/model.ts';
import { readModelConfig } from '../../src/graph/models/families.ts';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { openModel } from '../../src/graph/node/open-model.ts';
import { openDevice } from '../../src/kernels/device/device.ts';
import { geometryOf, prepareImage } from '../../src/pipeline/images/prepare.ts';
import { decodeFile } from '../../src/pipeline/node/decode.ts';

const goldens = join(import.meta.dirname, '..', 'golden');
const NAMES = ['sd1', 'sd2', 'v', 'xl', 'xl-v', 'dit'] as const;
const folderOf = (name: string) => join(goldens, `pipeline-${name}`);

interface Case {
  readonly image: number;
  readonly loss: 'l2' | 'l1';
  readonly stages: readonly {
    readonly timesteps: readonly number[];
    readonly noise: readonly number[];
    readonly errors: Readonly<Record<string, readonly number[]>>;
  }[];
}
const casesOf = (name: string): Case[] =>
  JSON.parse(readFileSync(join(folderOf(name), 'expected.json'), 'utf8'));

/** The prompts of `pipelines.py`; every comma in them is quoted. */
const promptsOf = (name: string): Candidate[] =>
  readFileSync(join(folderOf(name), 'prompts.csv'), 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => {
      const [, prompt, label, classidx] = /^"?(.*?)"?,(\w+),(\d)$/.exec(line)!;
      return { prompt: prompt!, label: label!, classidx: Number(classidx) };
    });

async function open(name: string, { loss, stages }: Case, options: OpenModelOptions = {}) {
  const timesteps = stages.flatMap((stage) => stage.timesteps);
  const model = await openModel(folderOf(name), {
    noiseFile: join(folderOf(name), 'noise.safetensors'),
    distance: loss,
    batchSize: 8,
    levels: () => timesteps.map((t) => ({ t, weight: 1 })),
    ...(name === 'dit' ? {} : { candidates: () => promptsOf(name) }),
    ...options,
  });
  return { model, timesteps };
}

interface Evaluation {
  readonly slot: number;
  readonly candidate: number;
  readonly level: number;
  readonly noise: number;
}
const batchOf = (evaluations: readonly Evaluation[]): EvaluationBatch => ({
  slot: Uint32Array.from(evaluations, ({ slot }) => slot),
  candidate: Uint32Array.from(evaluations, ({ candidate }) => candidate),
  level: Uint32Array.from(evaluations, ({ level }) => level),
  noise: Uint32Array.from(evaluations, ({ noise }) => noise),
});
async function errorsOf(model: Model, evaluations: readonly Evaluation[], size = model.batchSize) {
  const errors: number[] = [];
  for (let i = 0; i < evaluations.length; i += size)
    errors.push(...(await model.errors(batchOf(evaluations.slice(i, i + size)))));
  return errors;
}

async function encode(model: Model, name: string, image: number, slot = 0) {
  const pixels = await decodeFile(join(folderOf(name), 'images', `${image}.png`));
  const prepared = prepareImage(pixels, model.inputShape, { crop: model.crop });
  model.encode(slot, prepared, geometryOf(pixels, model.inputShape));
}

/** Returns the largest relative difference from the errors of a case, and the number of errors. */
async function compare(name: string, golden: Case, options: OpenModelOptions = {}) {
  const { model, timesteps } = await open(name, golden, options);
  await encode(model, name, golden.image);
  const expected = golden.stages.flatMap(({ timesteps: ts, noise, errors }) =>
    ts.flatMap((t, i) =>
      Object.entries(errors).map(([candidate, values]) => ({
        slot: 0,
        candidate: Number(candidate),
        level: timesteps.indexOf(t),
        noise: noise[i]!,
        error: values[i]!,
      })),
    ),
  );
  const actual = await errorsOf(model, expected);
  model.close();
  const worst = Math.max(...expected.map(({ error }, i) => Math.abs(actual[i]! - error) / error));
  return { worst, count: expected.length };
}

describe.each(NAMES)('%s', (name) => {
  it('has the errors of diffusers, to a relative 1e-4 in f32', async () => {
    for (const golden of casesOf(name)) {
      const { worst, count } = await compare(name, golden);
      expect(count).toBeGreaterThan(25);
      expect(worst).toBeLessThan(1e-4);
    }
  });

  it('has the errors of diffusers, to a relative 1e-2 with weights in f16', async () => {
    const { worst } = await compare(name, casesOf(name)[0]!, { weightDtype: 'f16' });
    expect(worst).toBeLessThan(1e-2);
  });

  it('gives an evaluation the same bytes in any batch, whatever it has in common with the others', async () => {
    const [golden] = casesOf(name);
    const { model } = await open(name, golden!, { slots: 2 });
    for (const slot of [0, 1]) await encode(model, name, slot, slot);
    const evaluations = Array.from({ length: 24 }, (_, i) => ({
      slot: i % 7 === 3 ? 1 : 0,
      candidate: i % 5,
      level: i >> 3,
      noise: (i >> 2) % 4,
    }));
    const whole = await errorsOf(model, evaluations);
    expect(new Set(whole).size).toBeGreaterThan(20);
    expect(await errorsOf(model, evaluations, 1)).toEqual(whole);
    expect(await errorsOf(model, evaluations, 3)).toEqual(whole);
    const reversed = await errorsOf(model, [...evaluations].reverse());
    expect(reversed.reverse()).toEqual(whole);
    const together = await errorsOf(
      model,
      evaluations.map((e) => ({ ...e, slot: 0, level: 0, noise: 0 })),
    );
    expect(new Set(together).size).toBe(5);
    model.close();
  });
});

describe.each(['xl', 'xl-v'])('Stable Diffusion XL: %s', (name) => {
  /** The errors of `told` and `null` in `pipelines_xl.py`. */
  interface XlCase extends Case {
    readonly told: {
      readonly size: readonly [number, number, number, number];
      readonly errors: readonly number[];
    };
    readonly null: readonly number[];
  }
  const [golden] = casesOf(name) as XlCase[];

  /** Returns the largest relative difference of the first candidate's errors at the timesteps of the first stage. */
  const worst = async (expected: readonly number[], options: OpenModelOptions) => {
    const { model } = await open(name, golden!, options);
    await encode(model, name, golden!.image);
    const at = (level: number) => ({ slot: 0, candidate: 0, level, noise: golden!.stages[0]!.noise[level]! });
    const errors = await errorsOf(
      model,
      expected.map((_, level) => at(level)),
    );
    model.close();
    return Math.max(...expected.map((error, i) => Math.abs(errors[i]! / error - 1)));
  };

  it('can be told another size of the images', async () => {
    const [height, width, top, left] = golden!.told.size;
    const sizeConditioning = { height, width, top, left };
    expect(await worst(golden!.told.errors, { sizeConditioning })).toBeLessThan(1e-4);
    expect(await worst(golden!.told.errors, {})).toBeGreaterThan(1e-3);
  });

  it('encodes no prompt as zeros, and the empty prompt as a text', async () => {
    expect(await worst(golden!.null, { unconditional: true })).toBeLessThan(1e-4);
    const empty = () => [{ label: 'empty', classidx: 0, prompt: '' }];
    expect(await worst(golden!.null, { candidates: empty })).toBeGreaterThan(1e-3);
  });
});

it('tells only Stable Diffusion XL the size of images', async () => {
  const sizeConditioning = { height: 64, width: 64, top: 0, left: 0 };
  await expect(open('sd1', casesOf('sd1')[0]!, { sizeConditioning })).rejects.toThrow(
    'a size conditioning was given, but only Stable Diffusion XL takes the size of images',
  );
});

describe('prompts whose keys and values are not kept', () => {
  /** Returns the errors of all prompts at two levels, with tables of at most a number of bytes. */
  const errorsWith = async (bytes: { readonly keptBytes?: number; readonly bindingBytes?: number }) => {
    const { config } = await readModelConfig(folderFiles(folderOf('sd1')));
    const folder = config as TextConfig;
    const file = await openTensorFile(folder.files, folder.weights);
    const levels = [100, 700].map((t) => ({ t, weight: 1, coefficients: coefficients(folder.schedule, t) }));
    const candidates = promptsOf('sd1');
    const options = { inputShape: [3, 64, 64], weightDtype: 'f32', ...bytes } as const;
    const { network, attach } = await textNetwork(folder, { file, levels, candidates, ...options });
    const device = await openDevice();
    const attached = await attach(device);
    const model = await denoiser(
      device,
      network,
      {
        name: 'sd1',
        candidates,
        labels: candidates.map((_, i) => i),
        levels,
        temperature: 1,
        noise: { seed: 1n },
        distance: 'l2',
        weightDtype: 'f32',
        batchSize: 8,
        slots: 1,
      },
      attached,
    );
    await encode(model, 'sd1', 0);
    const evaluations = [0, 1].flatMap((level) =>
      candidates.map((_, candidate) => ({ slot: 0, candidate, level, noise: level })),
    );
    const errors = await errorsOf(model, evaluations);
    model.close();
    await file.close();
    return { errors, tables: Object.keys(attached.tables ?? {}) };
  };

  it('have the same errors, computed from their encodings, whole or in parts', async () => {
    const kept = await errorsWith({});
    expect(kept.tables.every((name) => / [kv]$/.test(name))).toBe(true);
    const whole = await errorsWith({ keptBytes: 0 });
    expect(whole.tables).toEqual(['context 0']);
    // Five prompts of 77 tokens are a row of 388 numbers including padding; ten of the 24 channels fit.
    const parts = await errorsWith({ bindingBytes: 10 * 4 * 388 });
    expect(parts.tables).toEqual(['context 0', 'context 10', 'context 20']);
    for (const other of [whole, parts])
      other.errors.forEach((error, i) => {
        expect(Math.abs(error / kept.errors[i]! - 1)).toBeLessThan(1e-5);
      });
  });
});
