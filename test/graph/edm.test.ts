// Tests EDM models with random weights against EDM's networks and RDC's released classifier in double precision.

import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Candidate, type Model, NO_CLASS } from '../../src/graph/model.ts';
import { loadModel, type OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { edmTensors } from '../../src/graph/networks/edm-unet.ts';
import { parseEdmConfig } from '../../src/graph/networks/read-edm-config.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { describeModel, openModel, readModel } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../src/graph/node/write-safetensors.ts';
import { rdcLevels } from '../../src/graph/sigmas.ts';
import { edmGolden, imageOf, SIGMAS, writeEdmFolder, writeNoise } from './edm-folder.ts';

const NAMES = ['song', 'dhariwal', 'heads'] as const;
let root: string;
const folderOf = (name: string) => join(root, name);
const inOrder = SIGMAS.map((_, k) => k);
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'edm-'));
  for (const name of NAMES) await writeEdmFolder(folderOf(name), edmGolden(name));
  await writeNoise(join(root, 'noise.safetensors'));
});
afterAll(() => rm(root, { recursive: true }));

/** Returns the errors [candidate][level] of a golden model's image; the k-th level has noise k. */
async function errorsOf(model: Model, name: string): Promise<number[][]> {
  model.encode(0, imageOf(edmGolden(name)));
  const batches = model.candidates.map(async (_, candidate) => {
    const errors: number[] = [];
    for (let from = 0; from < model.levels.length; from += model.batchSize) {
      const level = Uint32Array.from(inOrder.slice(from, from + model.batchSize));
      const slot = new Uint32Array(level.length);
      const batch = { slot, candidate: slot.map(() => candidate), level, noise: level };
      errors.push(...(await model.errors(batch)));
    }
    return errors;
  });
  return Promise.all(batches);
}

/** Returns all errors of a model whose levels are RDC's grid, in the order of the grid. */
async function allErrors(name: string, options: OpenModelOptions = {}): Promise<number[][]> {
  const noiseFile = join(root, 'noise.safetensors');
  const model = await openModel(folderOf(name), {
    levels: () => rdcLevels(),
    noiseFile,
    slots: 1,
    batchSize: 15,
    ...options,
  });
  try {
    return await errorsOf(model, name);
  } finally {
    model.close();
  }
}

const worst = (actual: readonly number[], expected: readonly number[]): number => {
  expect(actual).toHaveLength(expected.length);
  return Math.max(...expected.map((value, i) => Math.abs(actual[i]! - value) / Math.abs(value)));
};

describe.each(NAMES)('%s', (name) => {
  const golden = edmGolden(name);

  it("has the tensors of EDM's state dict, except the resampling filters", () => {
    const { config, tensors } = golden;
    const weights = Object.entries(tensors).filter(([tensor]) => !tensor.endsWith('.resample_filter'));
    const recorded = edmTensors(parseEdmConfig(config, 'c'));
    expect(Object.fromEntries(recorded.map(({ name, shape }) => [name, shape]))).toEqual(
      Object.fromEntries(weights),
    );
  });

  it("equals the error of every evaluation, and RDC's logits and posterior, to a relative 5e-4", async () => {
    const { sigma_data: sigmaData = 0.5 } = golden.config as { sigma_data?: number };
    const levels = rdcLevels({ sigmaData });
    const errors = await allErrors(name, { levels: () => levels });
    expect(errors).toHaveLength(golden.errors.length);
    errors.forEach((row, label) => {
      expect(worst(row, golden.errors[label]!)).toBeLessThan(1e-4);
    });
    const logits = errors.map((row) => -row.reduce((sum, error, k) => sum + levels[k]!.weight * error, 0));
    expect(worst(logits, golden.logits)).toBeLessThan(1e-4);
    const likelihoods = logits.map(Math.exp);
    const total = likelihoods.reduce((sum, value) => sum + value);
    expect(
      worst(
        likelihoods.map((value) => value / total),
        golden.posterior,
      ),
    ).toBeLessThan(1e-4);
  });

  it('equals the gradients of errors with respect to the image, to a relative 1e-3', async () => {
    const noiseFile = join(root, 'noise.safetensors');
    const options = { levels: () => rdcLevels(), noiseFile, slots: 1, batchSize: 2 };
    const model = await openModel(folderOf(name), options);
    model.encode(0, imageOf(golden));
    const { gradients } = golden;
    const level = Uint32Array.from(gradients, ({ sigma }) => sigma);
    const candidate = Uint32Array.from(gradients, ({ label }) => label);
    const batch = { slot: level.map(() => 0), candidate, level, noise: level };
    const actual = await model.differentiable!.gradients(batch);
    gradients.forEach(({ sigma, label, values }, i) => {
      expect(Math.abs(actual.errors[i]! / golden.errors[label]![sigma]! - 1)).toBeLessThan(1e-3);
      const row = actual.gradients.subarray(i * values.length, (i + 1) * values.length);
      const largest = Math.max(...values.map(Math.abs));
      const off = Math.max(...values.map((value, k) => Math.abs(row[k]! - value)));
      expect(off / largest).toBeLessThan(1e-3);
    });
    model.close();
  });

  it("has RDC's grid and the temperature of a sum as defaults", async () => {
    const model = await readModel(folderOf(name));
    expect(model.levels.map(({ sigma }) => sigma!).sort((a, b) => a - b)).toEqual(
      rdcLevels().map(({ sigma }) => sigma),
    );
    const golden = edmGolden(name);
    const weights = model.levels.reduce((sum, { weight }) => sum + weight, 0);
    expect(model.temperature * weights).toBeCloseTo(1, 12);
    expect(model).toMatchObject({ residual: 'x0', numTrainTimesteps: 0, inputShape: [3, 8, 8] });
    expect(model.labels).toHaveLength(golden.errors.length);
    // Visits the levels with large weights first: RDC's weights are almost 0 at the ends of its grid.
    const first = (count: number) => Math.min(...model.levels.slice(0, count).map(({ sigma }) => sigma!));
    expect(first(3)).toBeGreaterThan(0.1);
    expect(first(32)).toBeGreaterThan(0.02);
  });

  it('is described without problems', async () => {
    const { problems, networks, pipeline, cost } = await describeModel(folderOf(name));
    expect(problems).toEqual([]);
    expect(pipeline).toBe('EDMPrecond');
    expect(cost!.flop).toBeGreaterThan(1e6);
    expect(networks.map(({ part }) => part)).toEqual(name === 'song' ? ['.', 'uncond'] : ['.']);
    const { tensors } = edmGolden(name);
    const values = Object.values(tensors).reduce(
      (sum, shape) => sum + shape.reduce((n, side) => n * side, 1),
      0,
    );
    expect(networks[0]).toMatchObject({ className: 'EDMPrecond', parameters: values, shards: 1 });
  });
});

describe('no class', () => {
  const nobody: Candidate = { label: '', classidx: NO_CLASS };

  it('is the zero label if training dropped labels', async () => {
    const [errors] = await allErrors('song', { candidates: () => [nobody] });
    expect(worst(errors!, edmGolden('song').nobody)).toBeLessThan(1e-4);
  });

  it('is the head after those of the classes', async () => {
    const [errors] = await allErrors('heads', { unconditional: true });
    expect(worst(errors!, edmGolden('heads').nobody)).toBeLessThan(1e-4);
  });

  it('is the network in uncond/ if there is one', async () => {
    const [errors, ...others] = await allErrors('song', { unconditional: true });
    expect(others).toEqual([]);
    expect(worst(errors!, edmGolden('song').uncond!.errors)).toBeLessThan(1e-4);
  });

  it('is rejected if training never dropped a label', async () => {
    const why =
      /^dhariwal: it has no prediction without a class: its network was trained with label_dropout 0/;
    await expect(loadModel(folderFiles(folderOf('dhariwal')), { unconditional: true })).rejects.toThrow(why);
    await expect(
      loadModel(folderFiles(folderOf('dhariwal')), { candidates: () => [nobody] }),
    ).rejects.toThrow(why);
  });
});

describe('invalid folders', () => {
  let spoilt: string;
  const config = () => ({ ...edmGolden('song').config });
  const spoil = async (changes: Readonly<Record<string, unknown>>, part = '', name = 'song') => {
    spoilt = join(root, 'spoilt');
    await rm(spoilt, { recursive: true, force: true });
    await cp(folderOf(name), spoilt, { recursive: true });
    const file = join(spoilt, part, 'config.json');
    const before = JSON.parse(await readFile(file, 'utf8'));
    await writeFile(file, JSON.stringify({ ...before, ...changes }));
    return spoilt;
  };

  it.each<[what: string, changes: Record<string, unknown>, message: string]>([
    [
      'an unknown network',
      { model_type: 'UNet' },
      'model_type: expected SongUNet or DhariwalUNet, got "UNet"',
    ],
    ['ncsn++', { embedding_type: 'fourier' }, 'embedding_type: expected positional, got "fourier"'],
    ['an encoder', { encoder_type: 'residual' }, 'encoder_type: expected standard, got "residual"'],
    ['a filter', { resample_filter: [1, 3, 3, 1] }, 'resample_filter: expected [1, 1], got [1, 3, 3, 1]'],
    ['an unknown key', { use_attention: 3 }, 'the key "use_attention" with value 3 is unknown'],
    [
      'a size that cannot be halved',
      { img_resolution: 9 },
      'img_resolution 9 is not a multiple of 2, which 2 levels need',
    ],
    [
      'channels without groups',
      { model_channels: 18 },
      'gives 8x8_block0 18 channels, which do not split into 4 groups',
    ],
    [
      'too many names',
      { id2label: { 0: 'a', 1: 'b', 2: 'c', 3: 'd' } },
      'expected id2label to name at most 3 classes (label_dim), got 4',
    ],
    [
      'a missing name',
      { id2label: { 0: 'a', 2: 'c' } },
      'expected all of 0 to 2 in id2label, got 2 classes without 1',
    ],
    ['a negative sigma_data', { sigma_data: -1 }, 'sigma_data: '],
    [
      'heads of a network that is conditioned on the class',
      { heads: 4 },
      'label_dim: expected 0 for a network with one head per class, got 3',
    ],
    ['one head', { heads: 1 }, 'heads: '],
  ])('%s', async (_what, changes, message) => {
    await expect(loadModel(folderFiles(await spoil(changes)))).rejects.toThrow(
      `${join(root, 'spoilt', 'config.json')}: `,
    );
    await expect(loadModel(folderFiles(spoilt))).rejects.toThrow(message);
  });

  it('need a name for each head, or for all but the last one, which is for no class', async () => {
    const names = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [i, `class ${i}`]));
    for (const count of [3, 4]) {
      const model = await readModel(await spoil({ id2label: names(count) }, '', 'heads'));
      expect(model.labels).toHaveLength(count);
      expect(model.heads).toBe(4);
    }
    await expect(readModel(await spoil({ id2label: names(2) }, '', 'heads'))).rejects.toThrow(
      `${join(spoilt, 'config.json')}: expected 4 classes for 4 heads, or 3 and a null head, got 2`,
    );
  });

  it('may not have a network in uncond/ that is conditioned on a class, or has another size', async () => {
    const file = join(root, 'spoilt', 'uncond', 'config.json');
    await expect(loadModel(folderFiles(await spoil({ label_dim: 3 }, 'uncond')))).rejects.toThrow(
      `${file}: expected label_dim 0, as the network is not conditioned on a class, got 3`,
    );
    await expect(loadModel(folderFiles(await spoil({ img_resolution: 16 }, 'uncond')))).rejects.toThrow(
      `${file}: expected img_resolution 8 as in the conditional network, got 16`,
    );
  });

  it.each<[what: string, change: (tensors: Map<string, Float32Array>) => void, message: string]>([
    [
      'missing',
      (tensors) => tensors.delete('model.map_layer0.bias'),
      'missing tensor "model.map_layer0.bias"',
    ],
    ['extra', (tensors) => tensors.set('model.x', new Float32Array(1)), 'unexpected tensor "model.x"'],
    [
      'another filter',
      (tensors) => tensors.get('model.dec.8x8_up.skip.resample_filter')!.fill(0.5),
      'expected "model.dec.8x8_up.skip.resample_filter" to be the mean of 2x2 pixels, got [0.5, 0.5, 0.5, 0.5]',
    ],
  ])('a tensor is %s', async (_what, change, message) => {
    const path = join(await spoil({}), 'model.safetensors');
    const file = await openSafetensors(path);
    const shapes = edmGolden('song').tensors;
    const tensors = new Map<string, Float32Array>();
    for (const name of file.tensors.keys()) tensors.set(name, await file.readF32(name));
    await file.close();
    change(tensors);
    await writeSafetensors(
      path,
      [...tensors].map(([name, data]) => [
        name,
        { dtype: 'F32', shape: shapes[name] ?? [data.length], data },
      ]),
    );
    await expect(loadModel(folderFiles(spoilt))).rejects.toThrow(`${path}: ${message}`);
  });

  it('may have no resampling filters', async () => {
    const path = join(await spoil({}), 'model.safetensors');
    const file = await openSafetensors(path);
    const tensors = [];
    for (const [name, { shape }] of file.tensors)
      if (!name.endsWith('resample_filter'))
        tensors.push([name, { dtype: 'F32', shape, data: await file.readF32(name) }] as const);
    await file.close();
    await writeSafetensors(path, tensors);
    const { close } = await loadModel(folderFiles(spoilt));
    await close();
  });

  it('use the sigmas and weights of their card', async () => {
    await spoil({});
    const card = { sigmas: [0.5, 0.1], weights: [1, 3], temperature: 0.25 };
    await writeFile(join(spoilt, 'card.json'), JSON.stringify(card));
    expect(await readModel(spoilt)).toMatchObject({
      levels: [
        { sigma: 0.5, weight: 1 },
        { sigma: 0.1, weight: 3 },
      ],
      temperature: 0.25,
    });
    await writeFile(join(spoilt, 'card.json'), JSON.stringify({ timesteps: [1] }));
    await expect(readModel(spoilt)).rejects.toThrow(
      "expected sigmas, which are the model's levels, got timesteps",
    );
  });

  it('reject levels that the model does not have', async () => {
    const path = folderOf('song');
    const at = (level: { readonly t?: number; readonly sigma?: number }) =>
      loadModel(folderFiles(path), { levels: () => [{ ...level, weight: 1 }] });
    await expect(at({ t: 3 })).rejects.toThrow('song: expected a sigma above 0, got timestep 3');
    await expect(at({ sigma: 0 })).rejects.toThrow('song: expected a sigma above 0, got sigma 0');
    await expect(loadModel(folderFiles(await spoil({ sigma_max: 2 })))).rejects.toThrow(
      'expected a sigma above 0 up to 2, got',
    );
  });

  it('accept the configuration that EDM itself writes', async () => {
    const text = JSON.stringify({ ...config(), sigma_max: 'INF' }).replace('"INF"', 'Infinity');
    await spoil({});
    await writeFile(join(spoilt, 'config.json'), text);
    const { close } = await loadModel(folderFiles(spoilt));
    await close();
  });
});
