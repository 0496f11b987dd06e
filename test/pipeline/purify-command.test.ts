// Tests the command `purify`.

import { existsSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ModelError } from '../../src/errors.ts';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../src/graph/node/write-safetensors.ts';
import { toModelInput } from '../../src/pipeline/images/pixels.ts';
import { decodePng, encodePng } from '../../src/pipeline/node/png.ts';
import { type Purified, purifyImages } from '../../src/pipeline/stream/purify-images.ts';
import { cli, linesOf } from './captured-cli.ts';
import { gaussianModel, timestepSigmas, timesteps } from './fake-denoiser.ts';
import { fakeFolder, SUMMARY } from './fake-folder.ts';
import { collect, gauss, hash } from './fake-model.ts';
import { greyPng, temporaryFolder, write } from './image-files.ts';

const DISCRETE = { ...SUMMARY, timestepSigmas };

describe('the command', () => {
  /** Opens the Gaussian model if there are no classes, else the fake model. */
  const open =
    (seen: OpenModelOptions[] = []) =>
    async (folder: string, how: OpenModelOptions) => {
      seen.push(how);
      if (!how.unconditional) return fakeFolder()(folder, how);
      const levels = how.levels!(DISCRETE);
      return gaussianModel({
        ...timesteps(...levels.map(({ t }) => t!)),
        inputShape: [1, 2, 2],
        seed: Number(how.seed),
        ...(how.noiseFile ? { noise: await noiseOf(how.noiseFile) } : {}),
        ...(how.batchSize ? { gradientBatchSize: how.batchSize } : {}),
      });
    };
  const noiseOf = async (path: string) => {
    const file = await openSafetensors(path);
    const noise = await file.readF32('noise');
    await file.close();
    return noise;
  };
  const random = (key: number) =>
    encodePng({
      width: 2,
      height: 2,
      channels: 1,
      data: Uint8Array.from({ length: 4 }, (_, i) => 255 * hash(key, i)),
    });

  test('writes PNGs, tensors and lines, keeps folders, and reports an invalid file in its line', async () => {
    const folder = temporaryFolder();
    const images = join(folder, 'in');
    write(images, { 'a.png': random(1), 'deep/b.png': random(2), 'bad.png': 'hello' });
    const [out, tensors] = [join(folder, 'out'), join(folder, 't.safetensors')];
    const {
      status,
      out: text,
      err,
    } = await cli(['purify', images, '--method', 'lm-momentum', '--out', out, '--tensors', tensors], open());
    expect(status).toBe(1);
    expect(err).toMatch(
      /^diffclass-stream: .*bad\.png: its first bytes.*\ndiffclass-stream: 2 images purified in/,
    );
    const lines = new Map(linesOf(text).map((line) => [relative(images, line.path), line]));
    expect([...lines.keys()].sort()).toEqual(['a.png', 'bad.png', 'deep/b.png']);
    expect(lines.get('bad.png').error.code).toBe('not-an-image');
    expect(Object.keys(lines.get('a.png'))).toEqual([
      'path',
      'image',
      'linf',
      'l2',
      'evaluations',
      'method',
      'seed',
      'model',
    ]);
    const file = await openSafetensors(tensors);
    expect([...file.tensors.keys()].sort()).toEqual(['a.png', 'deep/b.png']);
    for (const [name, key] of [
      ['a.png', 1],
      ['deep/b.png', 2],
    ] as const) {
      const values = await file.readF32(name);
      expect(file.tensors.get(name)!.shape).toEqual([1, 2, 2]);
      const before = toModelInput(await decodePng(random(key), 4));
      const moved = values.map((value, i) => Math.abs(value - before[i]!) / 2);
      expect(Math.max(...moved)).toBeLessThanOrEqual(8 / 255 + 1e-6);
      expect(Math.max(...moved)).toBeCloseTo(lines.get(name).linf, 6);
      const png = await decodePng(readFileSync(join(out, name)), 4);
      toModelInput(png).forEach(
        (value, i) => void expect(Math.abs(value - values[i]!)).toBeLessThan(1 / 255 + 1e-6),
      );
    }
    await file.close();
  });

  test('writes the same files for any batch and concurrency, and different ones for another seed', async () => {
    const folder = temporaryFolder();
    const images = join(folder, 'in');
    write(images, Object.fromEntries(Array.from({ length: 7 }, (_, key) => [`${key}.png`, random(key)])));
    const run = async (name: string, ...more: string[]) => {
      const tensors = join(folder, name);
      const argv = ['purify', images, '-q', '--method', 'lm-adam', '--out', join(folder, 'out')];
      expect((await cli([...argv, '--tensors', tensors, ...more], open())).status).toBe(0);
      return readFileSync(tensors).toString('base64');
    };
    const expected = await run('one');
    expect(await run('two', '--batch', '1', '--concurrency', '1')).toBe(expected);
    expect(await run('three', '--batch', '3')).toBe(expected);
    expect(await run('four', '--seed', '1')).not.toBe(expected);
  });

  test('passes options to the purification: step i has sigma i and noise i', async () => {
    const folder = temporaryFolder();
    write(folder, { 'in/a.png': random(1) });
    const values = Float32Array.from({ length: 12 }, (_, i) => gauss(i, 3));
    const noise = join(folder, 'noise.safetensors');
    await writeSafetensors(noise, [['noise', { dtype: 'F32', shape: [3, 1, 2, 2], data: values }]]);
    const seen: OpenModelOptions[] = [];
    const argv = ['--sigmas', '0.5,0.3,0.5', '--noise', noise, '--eps', '12.75/255', '--norm', 'l2'];
    const tensors = join(folder, 't.safetensors');
    const { status } = await cli(
      ['purify', join(folder, 'in/a.png'), '-q', '--method', 'lm-momentum', '--step-size', '0.07'].concat(
        argv,
        ['--out', join(folder, 'out'), '--tensors', tensors],
      ),
      open(seen),
    );
    expect(status).toBe(0);
    expect(seen[0]).toMatchObject({ unconditional: true, distance: 'l2', noiseFile: noise, seed: 0 });
    const [result] = await collect(
      purifyImages(
        (async function* () {
          yield { path: 'a', pixels: toModelInput(await decodePng(random(1), 4)) };
        })(),
        async () =>
          gaussianModel({
            ...timesteps(...[0.5, 0.3].map((sigma) => timestepSigmas.findIndex((own) => own >= sigma))),
            inputShape: [1, 2, 2],
            noise: values,
          }),
        {
          method: 'lm-momentum',
          norm: 'l2',
          eps: 0.05,
          stepSize: 0.07,
          sigmas: [0.5, 0.3, 0.5],
          noise: values,
        },
      ),
    );
    const file = await openSafetensors(tensors);
    expect([...(await file.readF32('a.png'))]).toEqual([...(result as Purified).pixels]);
    await file.close();
  });

  test('--resume purifies the remaining images', async () => {
    const folder = temporaryFolder();
    const images = join(folder, 'in');
    write(images, { 'a.png': random(1), 'b.png': random(2) });
    const [out, lines] = [join(folder, 'out'), join(folder, 'lines.jsonl')];
    const argv = ['purify', '--method', 'lm-adam', '--out', out, '--output', lines, '--resume', '-q'];
    expect((await cli([...argv, join(images, 'a.png')], open())).status).toBe(0);
    expect((await cli([...argv, images], open())).status).toBe(0);
    expect(linesOf(readFileSync(lines, 'utf8')).map(({ path }) => relative(images, path))).toEqual([
      'a.png',
      'b.png',
    ]);
  });

  test('--resume needs the same settings, and repeats failed items', async () => {
    const folder = temporaryFolder();
    const images = join(folder, 'in');
    write(images, { 'a.png': random(1), 'b.png': 'hello' });
    const lines = join(folder, 'lines.jsonl');
    const argv = [
      'purify',
      images,
      '--method',
      'lm-adam',
      '--out',
      join(folder, 'out'),
      '-o',
      lines,
      '--resume',
    ];
    expect((await cli(argv, open())).status).toBe(1);
    const before = readFileSync(lines, 'utf8');
    for (const more of [
      ['--seed', '1'],
      ['--steps', '2'],
    ]) {
      const { status, err } = await cli([...argv, ...more], open());
      expect([status, readFileSync(lines, 'utf8')]).toEqual([2, before]);
      expect(err).toContain('was made with other settings');
    }
    write(images, { 'b.png': random(2) });
    expect((await cli(argv, open())).status).toBe(0);
    const held = linesOf(readFileSync(lines, 'utf8'));
    expect(held.map(({ path }) => relative(images, path)).sort()).toEqual(['a.png', 'b.png']);
    expect(held.every(({ error, seconds }) => error === undefined && seconds === undefined)).toBe(true);
  });

  test('does not read images in --out, and does not overwrite inputs', async () => {
    const folder = temporaryFolder();
    write(folder, { 'a.png': random(1), 'out/old.png': random(2) });
    const inside = await cli(
      ['purify', folder, '-q', '--method', 'lm-adam', '--out', join(folder, 'out')],
      open(),
    );
    expect(inside.status).toBe(0);
    expect(linesOf(inside.out).map(({ path }) => relative(folder, path))).toEqual(['a.png']);
    const over = await cli(['purify', folder, '--method', 'lm-adam', '--out', folder], open());
    expect(over.status).toBe(2);
    expect(over.err).toMatch(/would be written over/);
    expect(readFileSync(join(folder, 'a.png')).equals(random(1))).toBe(true);
  });

  test.each<[argv: string, sentence: RegExp]>([
    ['a.png --out o', /--method is missing; choose one/],
    ['a.png --method lm-adam', /--out is missing; name the folder/],
    ['--method lm-adam --out o', /no INPUT/],
    [
      'a.png --method best --out o',
      /--method: expected lm-adam, lm-momentum, lm-residual, diffpure, got "best"/,
    ],
    ['a.png --method lm-adam --out o --eps 8', /--eps: expected a linf radius of at most 1.*8\/255; got 8/],
    ['a.png --method lm-adam --out o --eps 8/0', /--eps: expected a number above 0/],
    ['a.png --method lm-adam --out o --sigmas 0.4,,0.5', /--sigmas: expected numbers above 0/],
    [
      'a.png --method lm-adam --out o --sigmas 0.4 --steps 3',
      /--sigmas: expected a sigma for each of 3 steps, got 1/,
    ],
    ['a.png --method lm-adam --out o --t-star 100', /--t-star belongs to diffpure/],
    ['a.png --method diffpure --out o --t-star cifar9', /--t-star: expected an integer.*cifar10-linf/],
    [
      'a.png --method lm-adam --out o --noise none.safetensors',
      /none\.safetensors: the noise cannot be read/,
    ],
    ['a.png --method lm-adam --out o --resume', /--resume needs --output FILE/],
    ['a.png --method lm-adam --out o --resume -o l --tensors t', /exclude each other/],
  ])('%s: status 2', async (argv, sentence) => {
    const { status, out, err } = await cli(['purify', ...argv.split(' ')], open());
    expect(err).toMatch(sentence);
    expect(out).toBe('');
    expect(status).toBe(2);
    expect(existsSync('o')).toBe(false);
  });

  test('--dry-run prints the expected time, alone and before classifying, and writes nothing', async () => {
    const folder = temporaryFolder();
    const images = join(folder, 'in');
    write(images, { 'a.png': random(1), 'b.png': random(2) });
    const out = join(folder, 'out');
    const argv = [images, '--dry-run'];
    const alone = await cli(['purify', ...argv, '--method', 'lm-momentum', '--out', out], open());
    expect([alone.status, alone.err]).toEqual([0, '']);
    expect(alone.out).toMatch(/^work +5 steps of lm-momentum per image$/m);
    expect(alone.out).toMatch(/^all 2 images +.+ to .+, typically .+, what is spent once included$/m);
    expect(existsSync(out)).toBe(false);
    const before = await cli([...argv, '--purify', 'lm-momentum'], open());
    expect([before.status, before.err]).toEqual([0, '']);
    expect(before.out).toMatch(/^purify an image +.+ to .+, typically/m);
    const json = await cli([...argv, '--purify', 'lm-momentum', '--format', 'jsonl'], open());
    const { image, purification } = JSON.parse(json.out).seconds;
    expect(image.least).toBeGreaterThan(purification.least);
    expect(image.most).toBeGreaterThan(purification.most);
  });

  test('checks that outputs can be written before it opens the model', async () => {
    const folder = temporaryFolder();
    write(folder, { 'a.png': random(1), file: '' });
    const seen: OpenModelOptions[] = [];
    const refused = async (...argv: string[]) => {
      const rest = ['--method', 'lm-adam', ...argv];
      const { status, err } = await cli(['purify', join(folder, 'a.png'), ...rest], open(seen));
      expect([status, seen]).toEqual([2, []]);
      return err;
    };
    const out = join(folder, 'out');
    expect(await refused('--out', join(folder, 'file'))).toContain('is a file; expected a folder');
    expect(await refused('--out', out, '-o', folder)).toContain('is a folder; expected a file');
    expect(await refused('--out', out, '--tensors', join(folder, 'no/t'))).toContain(
      'its folder does not exist',
    );
    expect(existsSync(out)).toBe(false);
  });

  test('classify --purify purifies images first, and reports it', async () => {
    const folder = temporaryFolder();
    write(folder, { 'a.png': greyPng(3), 'b.png': greyPng(14) });
    const seen: OpenModelOptions[] = [];
    const argv = [folder, '-q', '--purify', 'lm-momentum', '--purify-eps', '0.1/255', '--purify-steps', '2'];
    const { status, out } = await cli(argv, open(seen));
    expect(status).toBe(0);
    expect(seen.map(({ unconditional }) => unconditional ?? false)).toEqual([false, true]);
    expect(
      linesOf(out)
        .map(({ path, classidx, purify: how }) => [relative(folder, path), classidx, how])
        .sort(),
    ).toEqual([
      ['a.png', 3, 'lm-momentum'],
      ['b.png', 4, 'lm-momentum'],
    ]);
    const csv = await cli([...argv, '--format', 'csv'], open());
    expect(csv.out.split('\n')[0]).toMatch(/,purify$/);
    expect(csv.out.split('\n')[1]).toMatch(/,lm-momentum$/);
    const without = await cli([folder, '--purify-steps', '2'], open());
    expect(without).toMatchObject({ status: 2, out: '' });
    expect(without.err).toMatch(/--purify-steps needs --purify METHOD/);
  });

  test('exits with the status of the error and writes nothing if the model cannot be unconditional', async () => {
    const folder = temporaryFolder();
    write(folder, { 'in/a.png': greyPng(1) });
    const refuse = async () => {
      throw new ModelError('fake: has no prediction without a class');
    };
    const out = join(folder, 'out');
    const { status, err } = await cli(
      ['purify', join(folder, 'in'), '--method', 'lm-adam', '--out', out],
      refuse,
    );
    expect(status).toBe(3);
    expect(err).toBe('diffclass-stream: fake: has no prediction without a class\n');
    expect(existsSync(out)).toBe(false);
  });
});
