// Tests zero-shot classification from the command line, with the real graph: tiny random pipelines against the published
// algorithm in diffusers and transformers, and invalid folders.

import { cp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { describeModel, openModel } from '../../src/graph/node/open-model.ts';
import { cli, linesOf } from './captured-cli.ts';
import { temporaryFolder } from './image-files.ts';

const goldens = join(import.meta.dirname, '..', 'golden');
const run = (...argv: string[]) => cli(argv, openModel, '', describeModel);
const pipeline = (name: string) => {
  const folder = join(goldens, `pipeline-${name}`);
  const candidates = name === 'dit' ? [] : ['--prompts', join(folder, 'prompts.csv')];
  return { folder, argv: ['--model', folder, ...candidates], images: join(folder, 'images') };
};

interface Stage {
  readonly timesteps: readonly number[];
  readonly noise: readonly number[];
  readonly errors: Readonly<Record<string, readonly number[]>>;
  readonly survivors: readonly number[];
}
interface Case {
  readonly image: number;
  readonly loss: string;
  readonly n_samples: readonly number[];
  readonly to_keep: readonly number[];
  readonly stages: readonly Stage[];
  readonly label: number;
}

describe.each(['sd1', 'sd2', 'v', 'dit'])('%s, staged, from PNG files to lines', (name) => {
  test('has the evaluations, errors, survivors and winner of the published algorithm', async () => {
    const { folder, argv, images } = pipeline(name);
    const cases: Case[] = JSON.parse(await readFile(join(folder, 'expected.json'), 'utf8'));
    const errors = join(temporaryFolder(), 'errors.jsonl');
    const schedule = ['--n-samples', cases[0]!.n_samples.join(), '--to-keep', cases[0]!.to_keep.join()];
    const noise = ['--noise', join(folder, 'noise.safetensors'), '--loss', cases[0]!.loss];
    const { status, out, err } = await run(
      ...argv,
      ...['--strategy', 'staged', ...schedule, ...noise, '--errors', errors, '--quiet', images],
    );
    expect(err).toBe('');
    expect(status).toBe(0);
    const lines = linesOf(out);
    const records = linesOf(await readFile(errors, 'utf8'));
    expect(lines).toHaveLength(cases.length);
    for (const golden of cases) {
      const path = join(images, `${golden.image}.png`);
      const expected = golden.stages.flatMap(({ timesteps, noise: indices, errors: table }) =>
        timesteps.flatMap((t, i) =>
          Object.entries(table).map(([candidate, values]) => ({
            key: `${candidate} ${t} ${indices[i]}`,
            error: values[i]!,
          })),
        ),
      );
      const actual = new Map<string, number>(
        records
          .filter((record) => record.path === path)
          .map(({ candidate, t, noise: index, error }) => [`${candidate} ${t} ${index}`, error]),
      );
      expect([...actual.keys()].sort()).toEqual(expected.map(({ key }) => key).sort());
      for (const { key, error } of expected)
        expect(Math.abs(actual.get(key)! - error) / error).toBeLessThan(5e-4);
      const line = lines.find((one) => one.path === path);
      expect(line.evaluations).toBe(expected.length);
      if (name === 'dit')
        expect(line).toMatchObject({
          classidx: golden.label,
          label: `class ${golden.label}, kind ${golden.label}`,
        });
      else {
        const rows = (await readFile(join(folder, 'prompts.csv'), 'utf8')).trim().split('\n').slice(1);
        expect(rows[golden.label]).toContain(`,${line.label},${line.classidx}`);
      }
    }
  });
});

test('labels and a template give the same line for any batch and concurrency', async () => {
  const { folder, images } = pipeline('sd2');
  const argv = [
    '--model',
    folder,
    '--labels',
    'cat,dog,ship',
    '--template',
    'an oil painting of a {}.',
    '--quiet',
  ];
  const lines = async (...more: string[]) => {
    const { status, out } = await run(...argv, ...more, images);
    expect(status).toBe(0);
    return linesOf(out)
      .map(({ seconds: _, ...line }) => line)
      .sort((a, b) => (a.path < b.path ? -1 : 1));
  };
  const first = await lines('--timesteps', 'even:12');
  expect(first).toHaveLength(2);
  expect(first[0].top.map((entry: { label: string }) => entry.label).sort()).toEqual(['cat', 'dog', 'ship']);
  expect(await lines('--timesteps', 'even:12', '--batch', '3', '--concurrency', '1')).toEqual(first);
});

test('--image-size accepts a size that the model can take, and rejects others', async () => {
  const { argv, images } = pipeline('sd2');
  const larger = await run(...argv, '--image-size', '32', '--timesteps', 'even:3', '--quiet', images);
  expect(larger.status).toBe(0);
  const refused = await run(...argv, '--image-size', '30', images);
  expect(refused).toMatchObject({ status: 2, out: '' });
  expect(refused.err).toMatch(/multiples of 4, got 30/);
});

test('match, info and --dry-run work on a real folder', async () => {
  const { folder, argv, images } = pipeline('sd1');
  const pairs = join(temporaryFolder(), 'pairs.csv');
  const [a, b] = [0, 1].map((i) => join(images, `${i}.png`));
  await writeFile(pairs, `item,image,caption\nx,${a},a cat\nx,${b},a storm\n`);
  const matched = await run('match', pairs, '--model', folder, '--timesteps', 'even:4', '--quiet');
  expect(matched.status).toBe(0);
  expect(linesOf(matched.out).length).toBeGreaterThan(0);
  const info = await run('info', folder, '--format', 'json');
  expect(info.status).toBe(0);
  expect(JSON.parse(info.out)).toBeTypeOf('object');
  const dry = await run(...argv, '--dry-run', '--format', 'jsonl', '--timesteps', 'even:4', images);
  expect(dry.status).toBe(0);
  expect(JSON.parse(dry.out).evaluations).toBeDefined();
});

describe('an invalid folder: status 3, and one sentence that says what to do', () => {
  type Change = (folder: string) => Promise<unknown>;
  const setJson = async (file: string, change: Record<string, unknown>) =>
    writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), ...change }));
  test.each<[what: string, change: Change, sentence: RegExp]>([
    [
      'no vocabulary',
      async (f) => {
        await rm(join(f, 'tokenizer/vocab.json'));
        await rm(join(f, 'tokenizer/tokenizer.json'));
      },
      /tokenizer.*vocab\.json/,
    ],
    [
      'a vocabulary larger than the text encoder',
      (f) => setJson(join(f, 'text_encoder/config.json'), { vocab_size: 500 }),
      /vocab_size/,
    ],
    [
      'inpainting',
      (f) => setJson(join(f, 'model_index.json'), { _class_name: 'StableDiffusionXLInpaintPipeline' }),
      /inpainting model of Stable Diffusion XL.*expected Stable Diffusion 1\.x or 2\.x/,
    ],
    [
      'Stable Diffusion 3',
      (f) => setJson(join(f, 'model_index.json'), { _class_name: 'StableDiffusion3Pipeline' }),
      /expected Stable Diffusion 1\.x or 2\.x/,
    ],
    [
      'Flux',
      (f) => setJson(join(f, 'model_index.json'), { _class_name: 'FluxPipeline' }),
      /expected Stable Diffusion 1\.x or 2\.x/,
    ],
    [
      'only a pickle by another name',
      (f) => rename(join(f, 'unet/diffusion_pytorch_model.safetensors'), join(f, 'unet/network.pt')),
      /network\.pt: expected weights by another name, such as diffusion_pytorch_model\.safetensors; .*safe_serialization/,
    ],
    [
      'no scheduler file',
      (f) => rm(join(f, 'scheduler'), { recursive: true }),
      /scheduler_config\.json: .*epsilon or v; copy it/,
    ],
    [
      'prompts of another width',
      (f) => setJson(join(f, 'unet/config.json'), { cross_attention_dim: 40 }),
      /cross_attention_dim is 40, but the text encoder has hidden_size 24/,
    ],
    ['an inpainting network', (f) => setJson(join(f, 'unet/config.json'), { in_channels: 9 }), /in_channels/],
  ])('%s', async (_what, change, sentence) => {
    const { folder, images } = pipeline('sd1');
    const copy = join(temporaryFolder(), 'model');
    await cp(folder, copy, { recursive: true });
    await change(copy);
    const { status, out, err } = await run('--model', copy, '--prompts', join(folder, 'prompts.csv'), images);
    expect(err).toMatch(sentence);
    expect(err.trimEnd()).not.toMatch(/\n/);
    expect(out).toBe('');
    expect(status).toBe(3);
  });
});
