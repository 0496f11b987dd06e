// Tests the command line in this process, with a fake model and captured streams.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import type { OpenFolder } from '../../src/pipeline/command/shared/model-choice.ts';
import { toModelInput } from '../../src/pipeline/images/pixels.ts';
import { admCrop, resizeAndCrop } from '../../src/pipeline/images/resize.ts';
import { decodePng, encodePng } from '../../src/pipeline/node/png.ts';
import { cli, linesOf } from './captured-cli.ts';
import { fakeFolder, LABELS, TEXT_SUMMARY } from './fake-folder.ts';
import type { Fake } from './fake-model.ts';
import { goodImages, greyPng, temporaryFolder, write } from './image-files.ts';

/** Sorts lines, so that their order does not depend on the run. */
const comparable = (out: string) => out.split('\n').sort();

describe('classify', () => {
  test('prints one line per image of a folder, with every field of the contract, and exits with 0', async () => {
    const folder = temporaryFolder();
    const paths = goodImages(folder, 25);
    const { status, out, err } = await cli(['classify', folder]);
    expect(status).toBe(0);
    const lines = linesOf(out);
    expect(lines.map(({ path }) => path).sort()).toEqual(paths);
    for (const { path, ...line } of lines) {
      const best = Number(/(\d+)\.png$/.exec(path)?.[1]) % LABELS.length;
      expect(line).toMatchObject({
        label: LABELS[best],
        classidx: best,
        decided: true,
        seed: 0,
        model: 'fake',
      });
      expect(Object.keys(line)).toEqual([
        'label',
        'classidx',
        'probability',
        'top',
        'margin',
        'decided',
        'evaluations',
        'seed',
        'model',
      ]);
      expect(line.top).toHaveLength(5);
      expect(Object.keys(line.top![0]!)).toEqual([
        'label',
        'classidx',
        'probability',
        'error',
        'stderr',
        'evaluations',
      ]);
    }
    expect(err).toMatch(
      /^diffclass-stream: 25 images classified in [\d.]+ s(, .* images\/s)?, [\d.]+ evaluations per image/,
    );
  });

  test('prints a line for each failed item, continues, and exits with 1', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 3);
    write(folder, {
      'cut.png': greyPng(1).subarray(0, 50),
      'empty.png': '',
      'text.png': 'hello',
      'gone.png': '->nowhere',
    });
    const { status, out } = await cli(['-q', folder, join(folder, 'missing.png')]);
    expect(status).toBe(1);
    const failures = linesOf(out).filter(({ error }) => error);
    expect(failures.map(({ path, error }) => [path.replace(`${folder}/`, ''), error!.code]).sort()).toEqual([
      ['cut.png', 'truncated'],
      ['empty.png', 'empty'],
      ['gone.png', 'not-found'],
      ['missing.png', 'not-found'],
      ['text.png', 'not-an-image'],
    ]);
    expect(linesOf(out)).toHaveLength(8);
  });

  test('prints the same lines for any batch, concurrency and order', async () => {
    const folder = temporaryFolder();
    const paths = goodImages(folder, 12);
    const expected = comparable((await cli([folder])).out);
    for (const batch of ['1', '7', '64'])
      for (const concurrency of ['1', '3', 'auto'])
        expect(
          comparable(
            (await cli(['--batch', batch, '--concurrency', concurrency, ...[...paths].reverse()])).out,
          ),
        ).toEqual(expected);
    expect(comparable((await cli(['--seed', '1', folder])).out)).not.toEqual(expected);
  });

  test('accepts standard input, CSV, top-k and labels', async () => {
    const folder = temporaryFolder();
    const paths = goodImages(folder, 3);
    const argv = ['--format', 'csv', '--top-k', '1', '--labels', 'cat,bee', '-0'];
    const { status, out } = await cli(argv, fakeFolder(), paths.join('\0'));
    expect(status).toBe(0);
    const [header, ...lines] = out.trim().split('\n');
    expect(header).toBe(
      'path,label,classidx,probability,margin,decided,evaluations,seed,model,device,unfamiliar,top,error_code,error_message,purify',
    );
    expect(lines).toHaveLength(3);
    expect(lines.find((line) => line.startsWith(paths[2]!))).toContain(',cat,2,');
  });

  test('passes options to the model', async () => {
    const seen: { options: OpenModelOptions; model: Fake }[] = [];
    const open = fakeFolder({ opened: (_, options, model) => seen.push({ options, model }) });
    const folder = temporaryFolder();
    goodImages(folder, 1);
    const argv =
      '--strategy all --timesteps even:4 --loss huber --seed 5 --batch 9 --concurrency 2 --quiet'.split(' ');
    const { out } = await cli([...argv, folder], open);
    expect(seen).toHaveLength(1);
    expect(seen[0]!.options).toMatchObject({ distance: 'huber', seed: 5, batchSize: 9, slots: 2 });
    expect(seen[0]!.model.closed).toBeGreaterThan(0);
    expect(linesOf(out)[0]).toMatchObject({ evaluations: 40, seed: 5 });
  });

  test('writes every evaluation to --errors, and their sum is the result', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 4);
    const log = join(folder, 'errors.jsonl');
    const { out } = await cli(['--strategy', 'all', '--errors', log, folder]);
    const records = readFileSync(log, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const results = linesOf(out);
    expect(records).toHaveLength(4 * 8 * 10);
    expect(Object.keys(records[0])).toEqual(['path', 'candidate', 't', 'noise', 'weight', 'error']);
    for (const { path, top } of results) {
      const mine = records.filter((record) => record.path === path && record.candidate === top![0]!.classidx);
      expect(mine.reduce((sum, { error }) => sum + error, 0) / mine.length).toBeCloseTo(top![0]!.error, 9);
    }
  });

  test('leaves images undecided with a budget', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 2);
    const { status, out } = await cli(['--strategy', 'all', '--budget', '20', folder]);
    expect(status).toBe(0);
    for (const line of linesOf(out)) expect(line).toMatchObject({ decided: false, evaluations: 20 });
  });
});

describe('text models', () => {
  const text = (opened?: (options: OpenModelOptions, model: Fake) => void) =>
    fakeFolder({ summary: TEXT_SUMMARY, opened: (_, options, model) => opened?.(options, model) });

  test('use the best prompt of a class in a table', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 3);
    const rows = ['"a photo, of a cat",cat,2', 'a kitten,kitten,2', 'a bee,bee,1', 'an ant,ant,0'];
    write(folder, { 'p.csv': `\ufeffprompt,classname,classidx\r\n${rows.join('\r\n')}\r\n` });
    const models: Fake[] = [];
    const argv = ['--prompts', join(folder, 'p.csv'), '--strategy', 'all', folder];
    const { status, out } = await cli(
      argv,
      text((_, model) => models.push(model)),
    );
    expect(status).toBe(0);
    expect(models[0]!.candidates).toHaveLength(4);
    const [ant, , cat] = linesOf(out).sort((a, b) => (a.path < b.path ? -1 : 1));
    expect(ant).toMatchObject({ label: 'ant', classidx: 0 });
    expect(ant.top[0]).toMatchObject({ classidx: 0, prompt: 'an ant', evaluations: 8 });
    expect(cat.classidx).toBe(2);
    expect(cat.top).toHaveLength(3);
    expect(['a photo, of a cat', 'a kitten']).toContain(cat.top[0].prompt);
    expect(cat.label).toBe(cat.top[0].prompt === 'a kitten' ? 'kitten' : 'cat');
    expect(cat.top[0].evaluations).toBe(16);
    const sum = (xs: number[]) => xs.reduce((total, x) => total + x, 0);
    expect(sum(cat.top.map(({ probability }: { probability: number }) => probability))).toBeCloseTo(1, 9);
    expect(cat.probability).toBe(cat.top[0].probability);
  });

  test('keep prompts, not classes, in a staged schedule', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 1);
    const log = join(folder, 'errors');
    const argv = '--labels ant,bee --template {} --template {}s --template {}! --quiet'.split(' ');
    const schedule = '--strategy staged --n-samples 2,4 --to-keep 3,1'.split(' ');
    const { out } = await cli([...argv, ...schedule, '--errors', log, folder], text());
    const records = linesOf(readFileSync(log, 'utf8'));
    // Six prompts run on two levels; the three prompts of the ant remain, and run on the other two.
    expect(records.map(({ t, candidate }) => `${t} ${candidate}`)).toEqual([
      ...[375, 875].flatMap((t) => [0, 1, 2, 3, 4, 5].map((c) => `${t} ${c}`)),
      ...[125, 625].flatMap((t) => [0, 1, 2].map((c) => `${t} ${c}`)),
    ]);
    expect(linesOf(out)[0]).toMatchObject({ label: 'ant', classidx: 0, evaluations: 18, decided: true });
  });

  test('resize images to --image-size', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 1);
    const seen: { options: OpenModelOptions; model: Fake }[] = [];
    const open = text((options, model) => seen.push({ options, model }));
    const argv = ['--labels', 'ant,bee', '--image-size', '6', folder];
    expect((await cli(argv, open)).status).toBe(0);
    expect(seen[0]!.options.imageSize).toBe(6);
    expect(seen[0]!.model.inputShape).toEqual([1, 6, 6]);
  });
});

test('the model determines how images are cropped', async () => {
  const folder = temporaryFolder();
  // 16 x 8: the halves of the centre are dark and bright, both ends are grey.
  const data = Uint8Array.from({ length: 128 }, (_, i) => [90, 0, 255, 90][Math.floor((i % 16) / 4)]!);
  write(folder, { 'a.png': encodePng({ width: 16, height: 8, channels: 1, data }) });
  const image = await decodePng(readFileSync(join(folder, 'a.png')), 1000);
  const cropped = async (crop?: 'centre' | 'adm') => {
    const encoded: Float32Array[] = [];
    const open: OpenFolder = async (path, options) => {
      const model = await fakeFolder()(path, options);
      const { encode } = model;
      return Object.assign(model, {
        crop,
        encode(slot: number, pixels: Float32Array) {
          encoded.push(pixels);
          encode.call(model, slot, pixels);
        },
      });
    };
    await cli(['-q', folder], open);
    return encoded[0]!;
  };
  const centre = toModelInput(resizeAndCrop(image, 2, 2));
  expect(await cropped()).toEqual(centre);
  expect(await cropped('centre')).toEqual(centre);
  const adm = await cropped('adm');
  expect(adm).toEqual(toModelInput(admCrop(image, 2)));
  expect(adm).not.toEqual(centre);
});

describe('resume', () => {
  test.each(['jsonl', 'csv'])(
    '%s: does not repeat completed images, but those of a torn line',
    async (format) => {
      const folder = temporaryFolder();
      goodImages(folder, 10);
      const output = join(folder, 'out');
      const argv = ['--format', format, '--output', output, '--resume', folder];
      await cli(argv);
      const whole = readFileSync(output, 'utf8');
      writeFileSync(output, whole.slice(0, whole.length >> 1));
      const seen: Fake[] = [];
      const { status, out, err } = await cli(
        argv,
        fakeFolder({ opened: (_, __, model) => seen.push(model) }),
      );
      expect([status, out]).toEqual([0, '']);
      expect(seen[0]!.encoded.length).toBeLessThan(10);
      expect(err).toMatch(/\d done before/);
      expect(comparable(readFileSync(output, 'utf8'))).toEqual(comparable(whole));
      expect((await cli(argv)).err).toContain(
        'nothing left to do: the output has results of 10 images already',
      );
    },
  );

  test('if not given, the output starts again', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 2);
    const output = join(folder, 'out');
    writeFileSync(output, 'old\n');
    await cli(['--output', output, folder]);
    expect(linesOf(readFileSync(output, 'utf8'))).toHaveLength(2);
  });
});
