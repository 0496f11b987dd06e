// Tests the command `match` with a fake model.

import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ModelError } from '../../src/errors.ts';
import type { Candidate } from '../../src/graph/model.ts';
import { cli, linesOf } from './captured-cli.ts';
import { fakeFolder, SUMMARY, TEXT_SUMMARY } from './fake-folder.ts';
import { type Fake, hash } from './fake-model.ts';
import { greyPng, temporaryFolder, write } from './image-files.ts';

/** Returns a table of items with images 10 i and 10 i + 1 and the captions "10 i" and "10 i + 1". */
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

/** Every image prefers its caption. Odd images have larger errors, by more than the captions change them. */
const errorOf = (byte: number, { prompt }: Candidate, level: number, noise: number): number =>
  0.5 +
  (byte % 2) * 0.3 +
  (prompt === String(byte) ? -0.1 : 0) +
  0.2 * hash(level, noise) +
  0.001 * hash(byte, Number(prompt), level, noise);

const matcher = (opened?: (model: Fake) => void) =>
  fakeFolder({ summary: TEXT_SUMMARY, errorOf, opened: (_, __, model) => opened?.(model) });

describe('match', () => {
  test('prints one line per item with all its errors, and the summary', async () => {
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
      // All pairs of an item share their noise, so their differences are exact.
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

  test('uses different noise at every level, the same for every pair', async () => {
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
    expect([...seen].sort(([a], [b]) => a - b)).toEqual(
      models[0]!.levels.map(({ t }, level) => [level, new Set([t])]),
    );
    expect([...counts.values()]).toEqual([6, 6, 6, 6]);
  });

  test('prints the same lines for any batch and concurrency; one slot is enough', async () => {
    const table = someItems(4);
    const expected = (await cli(['match', table], matcher())).out;
    for (const options of ['--batch 1 --concurrency 1', '--batch 7 --concurrency 3'])
      expect((await cli(['match', table, ...options.split(' ')], matcher())).out).toBe(expected);
  });

  test('opens the model group by group if there are many captions, and matches every item once', async () => {
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

  test('reports an unreadable image as a failure of its item, and exits with 1', async () => {
    const table = someItems(3);
    writeFileSync(join(table, '../10.png'), 'text');
    const { status, out } = await cli(['match', table], matcher());
    expect(status).toBe(1);
    const lines = linesOf(out);
    expect(lines[1]).toMatchObject({ item: 'item 1', error: { code: 'not-an-image' } });
    expect(lines[1].error.message).toContain('10.png: ');
    expect(lines[3].summary).toMatchObject({ items: 2, failures: 1 });
  });

  test('--resume repeats failed items, and rejects other settings', async () => {
    const table = someItems(3);
    const output = join(table, '../out');
    const late = join(table, '../10.png');
    const argv = ['match', table, '--output', output, '--resume'];
    const image = readFileSync(late);
    rmSync(late);
    expect((await cli(argv, matcher())).status).toBe(1);
    const before = readFileSync(output, 'utf8');
    for (const more of [
      ['--seed', '3'],
      ['--timesteps', 'even:2'],
      ['--loss', 'l1'],
    ]) {
      const { status, err } = await cli([...argv, ...more], matcher());
      expect([status, readFileSync(output, 'utf8')]).toEqual([2, before]);
      expect(err).toContain('was made with other settings');
    }
    writeFileSync(late, image);
    expect((await cli(argv, matcher())).status).toBe(0);
    const lines = linesOf(readFileSync(output, 'utf8'));
    expect(
      lines
        .slice(0, 3)
        .map(({ item }) => item)
        .sort(),
    ).toEqual(['item 0', 'item 1', 'item 2']);
    expect(lines[3].summary).toMatchObject({ items: 3, failures: 0 });
    expect(lines).toHaveLength(4);
  });

  test('--resume continues after the last whole line, and summarises both runs', async () => {
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
    ['--resume without a file', ['match', 'x.csv', '--resume'], matcher(), 2, '--resume needs --output'],
  ])('%s', async (_, argv, open, status, message) => {
    const actual = await cli(argv, open);
    expect([actual.status, actual.out]).toEqual([status, '']);
    expect(actual.err).toContain(message);
  });

  test('--dry-run prints the expected time, and no output', async () => {
    const table = someItems(3);
    const output = join(table, '../out');
    const { status, out, err } = await cli(['match', table, '--dry-run', '-o', output], matcher());
    expect([status, err]).toEqual([0, '']);
    expect(out).toMatch(/^work +48 evaluations per item$/m);
    expect(out).toMatch(/^all 3 items +.+ to .+, typically .+, what is spent once included$/m);
    expect(existsSync(output)).toBe(false);
  });

  test('checks that the output can be written before it opens the model', async () => {
    const notOpened = () => Promise.reject(new Error('the model was opened'));
    const { status, err } = await cli(['match', someItems(1), '-o', '/no/folder/o'], notOpened);
    expect(status).toBe(2);
    expect(err).toContain('--output: /no/folder/o cannot be written: its folder does not exist');
  });

  test('leaves the output unchanged for a class-conditional and for an invalid model', async () => {
    const table = someItems(2);
    const output = join(table, '../out');
    writeFileSync(output, 'precious\n');
    const argv = ['match', table, '-o', output];
    const classes = await cli(argv, fakeFolder({ summary: SUMMARY }));
    expect(classes.status).toBe(2);
    expect(classes.err).toContain('match needs a text-to-image model; fake has classes of its own');
    const broken = await cli(argv, () => Promise.reject(new ModelError('vae/config.json: broken')));
    expect([broken.status, broken.err]).toEqual([3, 'diffclass-stream: vae/config.json: broken\n']);
    expect(readFileSync(output, 'utf8')).toBe('precious\n');
  });
});
