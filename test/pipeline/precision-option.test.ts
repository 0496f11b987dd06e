// Tests --precision: it reaches the model, results and records of f16 say so, those of f32 stay as they were, and --resume
// does not mix precisions.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { describe, expect, test } from 'vitest';
import { NO_CLASS } from '../../src/graph/model.ts';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { headerOf } from '../../src/pipeline/command/shared/result-lines.ts';
import { smoothModel } from './attacking/fake-classifiers.ts';
import { cli, linesOf } from './captured-cli.ts';
import { fakeFolder, LABELS, SUMMARY, TEXT_SUMMARY } from './fake-folder.ts';
import { goodImages, greyPng, temporaryFolder, write } from './image-files.ts';

const COMMANDS = ['classify', 'match', 'purify', 'calibrate', 'attack', 'evaluate', 'doctor', 'info'];

test.each(COMMANDS)('%s --help lists it', async (command) => {
  const { status, out } = await cli([command, '--help']);
  expect(status).toBe(0);
  expect(out).toContain('--precision <name>');
});

test('it reaches the model, and auto is what a model does by default', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const seen: (string | undefined)[] = [];
  const open = fakeFolder({ opened: (_, { precision }) => seen.push(precision) });
  for (const words of [[], ['--precision', 'auto'], ['--precision', 'f32'], ['--precision', 'f16']])
    expect((await cli([folder, '-q', ...words], open)).status).toBe(0);
  expect(seen).toEqual([undefined, undefined, 'f32', 'f16']);
});

test('another name is refused', async () => {
  const { status, err } = await cli(['--precision', 'f8', 'x.png']);
  expect(status).toBe(2);
  expect(err).toContain('--precision: expected auto, f32 or f16, got "f8"');
});

test('lines of f16 say so, and those of f32 stay as they were', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const line = async (...words: string[]) => linesOf((await cli([folder, '-q', ...words])).out)[0];
  expect(await line()).not.toHaveProperty('precision');
  expect(await line('--precision', 'f32')).toEqual(await line());
  expect(await line('--precision', 'f16')).toEqual({ ...(await line()), precision: 'f16' });
});

test('CSV of f16 has the last column precision, and that of f32 stays as it was', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const rows = async (...words: string[]) =>
    parse((await cli([folder, '-q', '--format', 'csv', ...words])).out, { columns: true }) as object[];
  const [exact] = await rows();
  expect(exact).not.toHaveProperty('precision');
  expect(await rows('--precision', 'f32')).toEqual([exact]);
  expect(await rows('--precision', 'f16')).toEqual([{ ...exact, precision: 'f16' }]);
  expect(headerOf('csv', { energy: true, precision: 'f16' })).toMatch(/,energyLevels,precision\n$/);
});

const summary = { ...SUMMARY, inputShape: [1, 4, 4] as const, labels: LABELS.slice(0, 4) };
const smooth = async (_: string, { candidates, unconditional, levels, precision }: OpenModelOptions) =>
  Object.assign(smoothModel({ classes: 4, side: 4, levels: (levels?.(summary) ?? []).length || 4 }), {
    candidates: unconditional ? [{ label: '', classidx: NO_CLASS }] : (candidates?.(summary) ?? []),
    ...(precision === 'f16' && { precision }),
  });

describe('--resume', () => {
  test.each(['jsonl', 'csv'])('without a record of the run, %s does not mix precisions', async (format) => {
    const folder = temporaryFolder();
    goodImages(join(folder, 'in'), 2);
    for (const [first, second] of [
      ['f32', 'f16'],
      ['f16', 'f32'],
    ] as const) {
      const output = join(folder, `${first}.${format}`);
      const words = [join(folder, 'in'), '-q', '-o', output];
      expect((await cli([...words, '--precision', first])).status).toBe(0);
      rmSync(`${output}.run.json`);
      const before = readFileSync(output, 'utf8');
      const mixed = await cli([...words, '--resume', '--precision', second]);
      expect(mixed.status).toBe(2);
      expect(mixed.err).toMatch(
        format === 'csv' ? /expected the columns .*--precision/ : `precision was ${first}, now ${second}`,
      );
      expect(readFileSync(output, 'utf8')).toBe(before);
      const again = await cli([...words.filter((word) => word !== '-q'), '--resume', '--precision', first]);
      expect(again.status).toBe(0);
      expect(again.err).toContain('only model, seed and precision could be compared');
    }
  });

  const runs = {
    classify: { argv: (folder: string) => [join(folder, 'in')], open: fakeFolder() },
    match: {
      argv: (folder: string) => ['match', join(folder, 'pairs.csv')],
      open: fakeFolder({ summary: TEXT_SUMMARY }),
    },
    purify: {
      argv: (folder: string) => [
        'purify',
        join(folder, 'in'),
        '--method',
        'lm-adam',
        '--steps',
        '1',
        '--out',
        join(folder, 'out'),
      ],
      open: smooth,
    },
    evaluate: {
      argv: (folder: string) => ['evaluate', join(folder, 'set'), '--attacks', 'none'],
      open: smooth,
    },
  };

  test.each(Object.entries(runs))('%s does not mix precisions', async (name, { argv, open }) => {
    const folder = temporaryFolder();
    goodImages(join(folder, 'in'), 2);
    write(folder, { 'a.png': greyPng(1), 'b.png': greyPng(2) });
    write(folder, { 'pairs.csv': 'item,image,caption\nx,a.png,a\nx,b.png,b\ny,a.png,a\ny,b.png,b\n' });
    for (const [k, label] of summary.labels.entries())
      write(folder, { [`set/${label}/${k}.png`]: greyPng(60 * k) });
    for (const [first, second] of [
      ['f32', 'f16'],
      ['f16', 'f32'],
    ] as const) {
      const output = join(folder, `${first}.jsonl`);
      const words = [...argv(folder), '-q', '-o', output];
      const made = await cli([...words, '--precision', first], open);
      expect([made.err, made.status]).toEqual(['', 0]);
      const again = await cli([...words, '--resume', '--precision', first], open);
      expect([again.err, again.status]).toEqual(['', 0]);
      // A model of match is opened only if there is something left to do.
      if (name === 'match') writeFileSync(output, `${readFileSync(output, 'utf8').split('\n')[0]}\n`);
      const before = readFileSync(output, 'utf8');
      const mixed = await cli([...words, '--resume', '--precision', second], open);
      expect(mixed.status).toBe(2);
      expect(mixed.err).toMatch(new RegExp(`was (made in )?${first}`));
      expect(readFileSync(output, 'utf8')).toBe(before);
    }
  });
});
