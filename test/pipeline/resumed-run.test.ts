// Tests that --resume continues only the run that wrote the output.

import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { OpenFolder } from '../../src/pipeline/command/shared/model-choice.ts';
import { cli, linesOf } from './captured-cli.ts';
import { fakeFolder } from './fake-folder.ts';
import { goodImages, greyPng, temporaryFolder, write } from './image-files.ts';

const renamed =
  (name: string): OpenFolder =>
  async (folder, options) =>
    Object.assign(await fakeFolder()(folder, options), { name });

describe.each(['jsonl', 'csv'])('%s', (format) => {
  const earlier = async () => {
    const folder = temporaryFolder();
    goodImages(folder, 3);
    const output = join(folder, `r.${format}`);
    expect((await cli([folder, '-q', '--output', output])).status).toBe(0);
    return { folder, output, before: readFileSync(output, 'utf8') };
  };

  test.each<[string, readonly string[], string, OpenFolder?]>([
    ['another model', [], 'model was fake, now other', renamed('other')],
    ['another seed', ['--seed', '7'], 'seed was 0, now 7'],
    ['other candidates', ['--labels', 'cat,dog'], 'candidates was ant, bee, cat'],
    ['another strategy', ['--strategy', 'all'], 'strategy was sequential, default confidence, now all'],
    ['another confidence', ['--confidence', '0.9'], 'now sequential, 0.9 confidence'],
    ['another budget', ['--budget', '50'], 'budget was none, now 50'],
    ['other levels', ['--timesteps', 'even:4'], 'levels was 5, 15, 25'],
    ['another loss', ['--loss', 'l1'], "loss was the model's own, now l1"],
    ['another --top-k', ['--top-k', '2'], 'top-k was 5, now 2'],
  ])('%s: refused, and nothing is changed', async (_, argv, difference, open) => {
    const { folder, output, before } = await earlier();
    goodImages(folder, 4);
    const { status, err } = await cli([folder, '--output', output, '--resume', ...argv], open);
    expect(err).toContain('was made with other settings');
    expect(err).toContain(difference);
    expect(err).toContain('leave out --resume to begin anew');
    expect(status).toBe(2);
    expect(readFileSync(output, 'utf8')).toBe(before);
  });

  test('batch, concurrency and order do not change results, and may differ', async () => {
    const { folder, output } = await earlier();
    goodImages(folder, 5);
    const argv = ['--batch', '3', '--concurrency', '2', '--order', 'input', '-q'];
    expect((await cli([folder, '--output', output, '--resume', ...argv])).status).toBe(0);
    expect(readFileSync(output, 'utf8').trim().split('\n')).toHaveLength(format === 'csv' ? 6 : 5);
  });

  test('without a record, model and seed are read from the lines, with a warning', async () => {
    const { folder, output, before } = await earlier();
    rmSync(`${output}.run.json`);
    for (const [argv, open, difference] of [
      [['--seed', '7'], undefined, 'seed was 0, now 7'],
      [[], renamed('other'), 'model was fake, now other'],
    ] as const) {
      const { status, err } = await cli([folder, '--output', output, '--resume', ...argv], open);
      expect([status, readFileSync(output, 'utf8')]).toEqual([2, before]);
      expect(err).toContain(difference);
    }
    const { status, err } = await cli([folder, '--output', output, '--resume']);
    expect(status).toBe(0);
    expect(err).toContain(`r.${format}.run.json is missing`);
    expect(existsSync(`${output}.run.json`)).toBe(true);
  });

  test('a run killed between emptying the output and writing the record starts again', async () => {
    const { folder, output } = await earlier();
    writeFileSync(output, '');
    const { status } = await cli([folder, '-q', '--output', output, '--resume', '--seed', '7']);
    expect(status).toBe(0);
    expect(readFileSync(output, 'utf8').trim().split('\n')).toHaveLength(format === 'csv' ? 4 : 3);
  });

  test('failed items are repeated, and each item has one line', async () => {
    const folder = temporaryFolder();
    const paths = goodImages(folder, 2);
    const late = join(folder, 'late.png');
    const never = join(folder, 'never.png');
    const output = join(folder, `r.${format}`);
    const argv = [...paths, late, never, '-q', '--output', output, '--resume'];
    const lines = () => readFileSync(output, 'utf8').trim().split('\n');
    for (let round = 0; round < 2; round++) {
      expect((await cli(argv)).status).toBe(1);
      expect(lines()).toHaveLength(format === 'csv' ? 5 : 4);
    }
    write(folder, { 'late.png': greyPng(9) });
    expect((await cli(argv)).status).toBe(1);
    expect(lines()).toHaveLength(format === 'csv' ? 5 : 4);
    expect(lines().filter((line) => line.includes('not-found'))).toHaveLength(1);
    write(folder, { 'never.png': greyPng(8) });
    expect((await cli(argv)).status).toBe(0);
    expect(lines().filter((line) => line.includes('not-found'))).toHaveLength(0);
    expect(lines()).toHaveLength(format === 'csv' ? 5 : 4);
  });
});

test('a model of the same name with other weights is another model', async () => {
  const folder = temporaryFolder();
  const model = join(folder, 'model');
  goodImages(join(folder, 'images'), 1);
  write(model, { 'unet/a.safetensors': Buffer.alloc(200_000, 1), 'card.json': '{}' });
  const output = join(folder, 'r.jsonl');
  const argv = [join(folder, 'images'), '--model', model, '--output', output, '--resume'];
  expect((await cli(argv)).status).toBe(0);
  write(model, { 'README.md': 'words', 'gone.json': '->nowhere' });
  expect((await cli(argv)).status).toBe(0);
  const trained = Buffer.alloc(200_000, 1);
  trained[199_999] = 2;
  write(model, { 'unet/a.safetensors': trained });
  const { status, err } = await cli(argv);
  expect(status).toBe(2);
  expect(err).toMatch(/model files was [0-9a-f]{16}, now [0-9a-f]{16}/);
});

test('columns that differ are named', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const output = join(folder, 'r.csv');
  await cli([folder, '-q', '--output', output]);
  const { status, err } = await cli([folder, '--output', output, '--resume', '--timings']);
  expect(status).toBe(2);
  expect(err).toContain('expected the columns path,label');
});

test('text cannot be resumed', async () => {
  const { status, err } = await cli(['x', '--output', 'r.txt', '--resume']);
  expect(status).toBe(2);
  expect(err).toContain('expected --format jsonl or csv, got text');
});

test('the name of the output determines the format, and --format overrides it', async () => {
  const folder = temporaryFolder();
  const [image = ''] = goodImages(folder, 1);
  const made = async (name: string, ...argv: string[]) => {
    expect((await cli([image, '-q', '--output', join(folder, name), ...argv])).status).toBe(0);
    return readFileSync(join(folder, name), 'utf8');
  };
  expect(await made('a.CSV')).toMatch(/^path,label,/);
  for (const name of ['a.jsonl', 'a.ndjson', 'a']) expect(linesOf(await made(name))).toHaveLength(1);
  expect(await made('a.txt')).toMatch(/^ant +\d+\.\d %/);
  expect(linesOf(await made('b.csv', '--format', 'jsonl'))).toHaveLength(1);
});

test('--order input writes results in the order of the inputs, including failures', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 30);
  write(folder, { '0007.png': 'hello', '0019.png': '' });
  const { out } = await cli([folder, '-q', '--order', 'input', '--concurrency', '8']);
  const paths = linesOf(out).map(({ path }) => path);
  expect(paths).toEqual([...paths].sort());
  expect(paths).toHaveLength(30);
});
