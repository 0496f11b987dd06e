// Matching images and captions: the scores, the table, the command.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Candidate } from '../../src/graph/model.ts';
import { ModelError } from '../../src/kernels/errors.ts';
import { inGroups, readItems } from '../../src/pipeline/command/pairs.ts';
import { lessUnconditional, matchesOf, scoreOf } from '../../src/pipeline/deciding/matching.ts';
import { cli, linesOf } from './capture.ts';
import { collect, type Fake, hash } from './fake.ts';
import { fakeFolder, SUMMARY, TEXT_SUMMARY } from './fakefolder.ts';
import { greyPng, temporaryFolder, write } from './imagefiles.ts';

describe('scores', () => {
  test.each([
    [
      'all right',
      [
        [1, 2],
        [2, 1],
      ],
      true,
      true,
    ],
    [
      'image 0 prefers the other caption',
      [
        [2, 1],
        [3, 1],
      ],
      false,
      false,
    ],
    [
      'every image right, but caption 1 prefers image 0',
      [
        [1, 2],
        [4, 3],
      ],
      true,
      false,
    ],
    [
      'every caption right, but image 1 prefers caption 0',
      [
        [1, 5],
        [2, 4],
      ],
      false,
      true,
    ],
    [
      'a tie is wrong',
      [
        [1, 1],
        [2, 1],
      ],
      false,
      false,
    ],
    [
      'three of each',
      [
        [1, 2, 2],
        [2, 1, 2],
        [2, 2, 1],
      ],
      true,
      true,
    ],
    [
      'three of each, the last caption prefers the first image',
      [
        [1, 2, 2],
        [4, 1, 4],
        [5, 5, 3],
      ],
      true,
      false,
    ],
  ])('%s', (_, errors, text, image) => {
    expect(matchesOf(errors)).toEqual({ text, image, group: text && image });
  });

  test('an image that is likely by itself is put right by its unconditional error, texts never change', () => {
    const errors = [
      [1, 2],
      [4, 3],
    ];
    const less = lessUnconditional(errors, [1.5, 4.2]);
    expect(less.map((row) => row.map((x) => Number(x.toFixed(6))))).toEqual([
      [-0.5, 0.5],
      [-0.2, -1.2],
    ]);
    expect(matchesOf(less)).toEqual({ text: true, image: true, group: true });
  });

  test('the interval is 1.96 sqrt(p (1 - p) / n): Winoground of 400 items at 38.5 %', () => {
    const { score, interval, correct } = scoreOf(154, 400);
    expect([score, correct]).toEqual([0.385, 154]);
    expect(interval[0]).toBeCloseTo(0.3373, 4);
    expect(interval[1]).toBeCloseTo(0.4327, 4);
    expect(scoreOf(3, 3).interval).toEqual([1, 1]);
    expect(scoreOf(0, 0)).toEqual({ score: 0, interval: [0, 1], correct: 0 });
    expect(scoreOf(1, 2).interval).toEqual([0, 1]);
  });
});

describe('the table', () => {
  const table = (text: string) => {
    const folder = temporaryFolder();
    write(folder, { 'pairs.csv': text });
    return { folder, items: () => collect(readItems(join(folder, 'pairs.csv'))) };
  };

  test('items of two and three, quotes, CRLF, a byte order mark, columns in any order', async () => {
    const { folder, items } = table(
      '\ufeffcaption,item,more,image\r\n"a dog, biting a man",1,x,a.png\r\na man,1,,sub/b.png\r\n' +
        'x,2,,/c.png\r\n"",2,,d.png\r\nz,2,,e.png\r\n',
    );
    expect(await items()).toEqual([
      {
        item: '1',
        images: [join(folder, 'a.png'), join(folder, 'sub/b.png')],
        captions: ['a dog, biting a man', 'a man'],
      },
      {
        item: '2',
        images: ['/c.png', join(folder, 'd.png'), join(folder, 'e.png')],
        captions: ['x', '', 'z'],
      },
    ]);
  });

  test.each([
    ['item,image\n1,a\n', 'wanted the columns item, image and caption; caption is missing'],
    ['item,image,caption\n1,,c\n', 'line 2: image is empty'],
    ['item,image,caption\n', 'holds no items'],
    ['item,image,caption\n1,a,b\n2,a,b\n2,a,b\n', 'line 2: item "1" has one row'],
    ['item,image,caption\n1,a,b\n1,a,b\n2,a,b\n2,a,b\n1,a,b\n', 'line 6: item "1" was there before'],
    ['item,image,caption\n1,"a,b\n', 'is not CSV'],
  ])('%j', async (text, message) => {
    await expect(table(text).items()).rejects.toThrow(message);
  });

  test('groups have a bounded number of captions, and one item at least', async () => {
    const items = [
      ['a', 'b'],
      ['b', 'c'],
      ['d', 'e', 'f', 'g'],
      ['h', 'i'],
    ].map((captions, i) => ({
      item: String(i),
      images: captions,
      captions,
    }));
    const source = async function* () {
      yield* items;
    };
    const groups = await collect(inGroups(source(), 3));
    expect(groups.map((group) => group.map(({ item }) => item))).toEqual([['0', '1'], ['2'], ['3']]);
  });
});

/** Items of two images, 10 i and 10 i + 1, with the captions "10 i" and "10 i + 1". */
function someItems(count: number): string {
  const folder = temporaryFolder();
  const rows = ['item,image,caption'];
  for (let i = 0; i < count; i++)
    for (const shade of [10 * i, 10 * i + 1]) {
      write(folder, { [`${shade}.png`]: greyPng(shade) });
      rows.push(`item ${i},${shade}.png,${shade}`);
    }
  write(folder, { 'pairs.csv': rows.join('\n') });
  return join(folder, 'pairs.csv');
}

/** Every image prefers its caption; odd images are unlikely, by more than captions matter. */
const errorOf = (byte: number, { prompt }: Candidate, level: number, noise: number): number =>
  0.5 +
  (byte % 2) * 0.3 +
  (prompt === String(byte) ? -0.1 : 0) +
  0.2 * hash(level, noise) +
  0.001 * hash(byte, Number(prompt), level, noise);

const matcher = (opened?: (model: Fake) => void) =>
  fakeFolder({ summary: TEXT_SUMMARY, errorOf, opened: (_, __, model) => opened?.(model) });

describe('match', () => {
  test('an item a line with all its errors, and the summary', async () => {
    const models: Fake[] = [];
    const { status, out, err } = await cli(
      ['match', someItems(3)],
      matcher((model) => models.push(model)),
    );
    expect(status).toBe(0);
    const lines = linesOf(out);
    expect(lines).toHaveLength(4);
    for (const [i, line] of lines.slice(0, 3).entries()) {
      expect(line).toMatchObject({ item: `item ${i}`, captions: [`${10 * i}`, `${10 * i + 1}`] });
      expect(line).toMatchObject({ text: true, image: false, group: false, evaluations: 2 * 3 * 8 });
      expect(line.lessUnconditional).toEqual({ text: true, image: true, group: true });
      // The noise is common to all pairs of an item, so what is left between them is what was put in.
      const [[own, other], [cross, second]] = line.errors;
      expect(own - other).toBeCloseTo(-0.1, 2);
      expect(cross - own).toBeCloseTo(0.4, 2);
      expect(second - cross).toBeCloseTo(-0.1, 2);
      expect(line.unconditional[1] - cross).toBeCloseTo(0, 2);
    }
    expect(lines[3]).toEqual({
      summary: {
        items: 3,
        failures: 0,
        text: { score: 1, interval: [1, 1], correct: 3 },
        image: { score: 0, interval: [0, 0], correct: 0 },
        group: { score: 0, interval: [0, 0], correct: 0 },
        lessUnconditional: {
          text: { score: 1, interval: [1, 1], correct: 3 },
          image: { score: 1, interval: [1, 1], correct: 3 },
          group: { score: 1, interval: [1, 1], correct: 3 },
        },
        evaluations: 3 * 48,
        seed: 0,
        model: 'fake',
      },
    });
    expect(err).toContain('text 100.0 % (100.0 to 100.0), image 0.0 %');
    const prompts = models.map(({ candidates }) => candidates.map(({ prompt }) => prompt));
    expect(prompts).toEqual([['0', '1', '10', '11', '20', '21', '']]);
    expect(models[0]!.closed).toBe(1);
  });

  test('levels ascend, the k-th with noise k, the same for every pair', async () => {
    const models: Fake[] = [];
    await cli(
      ['match', someItems(1), '--timesteps', 'even:4'],
      matcher((model) => models.push(model)),
    );
    const seen = new Map<number, Set<number>>();
    const counts = new Map<number, number>();
    for (const { level, noise } of models[0]!.batches)
      level.forEach((l, i) => {
        seen.set(noise[i]!, (seen.get(noise[i]!) ?? new Set()).add(models[0]!.levels[l]!.t!));
        counts.set(noise[i]!, (counts.get(noise[i]!) ?? 0) + 1);
      });
    expect([...seen].sort(([a], [b]) => a - b)).toEqual([
      [0, new Set([125])],
      [1, new Set([375])],
      [2, new Set([625])],
      [3, new Set([875])],
    ]);
    expect([...counts.values()]).toEqual([6, 6, 6, 6]);
  });

  test('the same lines whatever the batch and the concurrency; one slot is enough', async () => {
    const table = someItems(4);
    const wanted = (await cli(['match', table], matcher())).out;
    for (const options of ['--batch 1 --concurrency 1', '--batch 7 --concurrency 3'])
      expect((await cli(['match', table, ...options.split(' ')], matcher())).out).toBe(wanted);
  });

  test('many captions: the model is opened group by group, and every item is matched once', async () => {
    const models: Fake[] = [];
    const { out } = await cli(
      ['match', someItems(20), '-q'],
      matcher((model) => models.push(model)),
    );
    const repeated = await cli(['match', someItems(20), '-q'], matcher());
    expect(repeated.out.replaceAll(/"images":\[[^\]]*\]/g, '')).toBe(
      out.replaceAll(/"images":\[[^\]]*\]/g, ''),
    );
    expect(models).toHaveLength(1);
    const folder = temporaryFolder();
    write(folder, { 'a.png': greyPng(1), 'b.png': greyPng(2) });
    const rows = Array.from({ length: 50 }, (_, i) => `${i},a.png,${2 * i}\n${i},b.png,${2 * i + 1}`);
    write(folder, { 'pairs.csv': `item,image,caption\n${rows.join('\n')}\n` });
    models.length = 0;
    const many = await cli(
      ['match', join(folder, 'pairs.csv'), '-q'],
      matcher((model) => models.push(model)),
    );
    expect(models.map(({ candidates }) => candidates.length)).toEqual([65, 37]);
    expect(models.every(({ closed }) => closed === 1)).toBe(true);
    expect(linesOf(many.out).map(({ item }) => item)).toEqual([
      ...Array.from({ length: 50 }, (_, i) => String(i)),
      undefined,
    ]);
  });

  test('an image that cannot be read fails its item only, status 1', async () => {
    const table = someItems(3);
    writeFileSync(join(table, '../10.png'), 'text');
    const { status, out } = await cli(['match', table], matcher());
    expect(status).toBe(1);
    const lines = linesOf(out);
    expect(lines[1]).toMatchObject({ item: 'item 1', error: { code: 'not-an-image' } });
    expect(lines[1].error.message).toContain('10.png: ');
    expect(lines[3].summary).toMatchObject({ items: 2, failures: 1 });
  });

  test('--resume goes on behind the last whole line, and sums up both runs', async () => {
    const table = someItems(4);
    const output = join(table, '../out');
    const argv = ['match', table, '--output', output, '--resume'];
    await cli(argv, matcher());
    const whole = readFileSync(output, 'utf8');
    const lines = whole.split('\n');
    writeFileSync(output, `${lines[0]}\n${lines[1]}\n${lines[2]!.slice(0, 40)}`);
    const models: Fake[] = [];
    expect(
      (
        await cli(
          argv,
          matcher((model) => models.push(model)),
        )
      ).status,
    ).toBe(0);
    expect(readFileSync(output, 'utf8')).toBe(whole);
    expect(models[0]!.encoded).toHaveLength(4);
    const { status, err } = await cli(argv, matcher());
    expect([status, readFileSync(output, 'utf8')]).toEqual([0, whole.replace(',"model":"fake"}}', '}}')]);
    expect(err).toContain('0 items');
    writeFileSync(output, 'precious\n');
    expect((await cli(argv, matcher())).status).toBe(2);
    expect(readFileSync(output, 'utf8')).toBe('precious\n');
  });

  test.each([
    ['no table', ['match'], matcher(), 2, 'PAIRS.csv'],
    ['no such table', ['match', 'none.csv'], matcher(), 2, 'none.csv: cannot be read (ENOENT)'],
    ['an option of classify', ['match', 'x.csv', '--labels', 'a'], matcher(), 2, "unknown option '--labels'"],
    ['--resume without a file', ['match', 'x.csv', '--resume'], matcher(), 2, '--resume wants --output'],
  ])('%s', async (_, argv, open, status, message) => {
    const got = await cli(argv, open);
    expect([got.status, got.out]).toEqual([status, '']);
    expect(got.err).toContain(message);
  });

  test('a model of classes and a broken one leave the output alone', async () => {
    const table = someItems(2);
    const output = join(table, '../out');
    writeFileSync(output, 'precious\n');
    const argv = ['match', table, '-o', output];
    const classes = await cli(argv, fakeFolder({ summary: SUMMARY }));
    expect(classes.status).toBe(2);
    expect(classes.err).toContain('match wants a text-to-image model; fake has classes of its own');
    const broken = await cli(argv, () => Promise.reject(new ModelError('vae/config.json: broken')));
    expect([broken.status, broken.err]).toEqual([3, 'diffclass-stream: vae/config.json: broken\n']);
    expect(readFileSync(output, 'utf8')).toBe('precious\n');
  });
});
