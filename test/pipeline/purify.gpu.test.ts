// Tests `purify` with the real graph, from files to tensors, against torch (test/golden/purify.py).

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { describeModel, openModel } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { edmGolden, writeEdmFolder, writeImage, writeNoise } from '../graph/edm-folder.ts';
import { cli, linesOf } from './captured-cli.ts';
import { temporaryFolder } from './image-files.ts';

const goldens = join(import.meta.dirname, '..', 'golden');
const run = (...argv: string[]) => cli(argv, openModel, '', describeModel);

interface Case {
  readonly name: string;
  readonly model: string;
  readonly argv: readonly string[];
}
const cases: readonly Case[] = JSON.parse(readFileSync(join(goldens, 'purify', 'cases.json'), 'utf8'));
const models = [...new Set(cases.map(({ model }) => model))];

/** Writes the folder of a golden model, its images and its noise. */
async function writeGolden(model: string, folder: string) {
  if (model !== 'edm-song')
    return {
      model: join(goldens, `errors-${model}`),
      images: join(goldens, 'errors-images'),
      noise: join(goldens, 'errors-noise.safetensors'),
    };
  const golden = edmGolden('song');
  return {
    model: await writeEdmFolder(join(folder, 'model'), golden),
    images: writeImage(join(folder, 'song.png'), golden),
    noise: await writeNoise(join(folder, 'noise.safetensors')),
  };
}

/** Returns all tensors of a file by name. */
async function tensorsOf(path: string): Promise<Map<string, Float32Array>> {
  const file = await openSafetensors(path);
  try {
    const found = new Map<string, Float32Array>();
    for (const name of file.tensors.keys()) found.set(name, await file.readF32(name));
    return found;
  } finally {
    await file.close();
  }
}

const far = (x: Float32Array, y: Float32Array) =>
  x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i]!)), 0);

describe.each(models)('%s', (model) => {
  test.each(cases.filter((one) => one.model === model))('$name', async ({ name, argv }) => {
    const folder = temporaryFolder();
    const { model: path, images, noise } = await writeGolden(model, folder);
    const tensors = join(folder, 'tensors.safetensors');
    const { status, out, err } = await run(
      ...['purify', images, '--model', path, ...argv, '--noise', noise],
      ...['--out', join(folder, 'out'), '--tensors', tensors, '--quiet', '--batch', '4'],
    );
    expect(err).toBe('');
    expect(status).toBe(0);
    const expected = await tensorsOf(join(goldens, 'purify', `${model}.safetensors`));
    const actual = await tensorsOf(tensors);
    expect(linesOf(out)).toHaveLength(actual.size);
    expect(actual.size).toBe(model === 'edm-song' ? 1 : 3);
    for (const [image, x] of actual) expect(far(x, expected.get(`${name}/${image}`)!)).toBeLessThan(2e-3);
  });
});

test('purify writes the same bytes for any batch and concurrency, by seed; classify purifies first', async () => {
  const folder = temporaryFolder();
  const { model, images } = await writeGolden('epsilon', folder);
  const argv = ['--model', model, '--quiet', images, '--batch', '8'];
  const bytes = async (...more: string[]) => {
    const tensors = join(folder, 'tensors.safetensors');
    const out = ['--out', join(folder, 'out'), '--tensors', tensors];
    const { status } = await run(
      'purify',
      ...argv,
      ...out,
      '--method',
      'lm-momentum',
      '--steps',
      '2',
      ...more,
    );
    expect(status).toBe(0);
    return readFileSync(tensors).toString('base64');
  };
  const first = await bytes();
  expect(await bytes('--batch', '2', '--concurrency', '1')).toBe(first);
  expect(await bytes('--seed', '1')).not.toBe(first);

  const purify = ['--purify', 'lm-momentum', '--purify-steps', '2', '--timesteps', 'even:4'];
  const { status, out } = await run('classify', ...argv, ...purify);
  expect(status).toBe(0);
  expect(linesOf(out).map((line) => line.purify)).toEqual(['lm-momentum', 'lm-momentum', 'lm-momentum']);
});
