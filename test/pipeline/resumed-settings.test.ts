// Tests that --resume compares every setting on which results depend: each is changed alone, and the run is rejected. A
// setting that is missing in the record would silently mix results of two different runs in one file.

import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { smoothModel } from './attacking/fake-classifiers.ts';
import { cli, linesOf } from './captured-cli.ts';
import { fakeFolder, LABELS, SUMMARY, TEXT_SUMMARY } from './fake-folder.ts';
import { goodImages, greyPng, temporaryFolder, write } from './image-files.ts';

const SIDE = 4;
const summary = { ...SUMMARY, inputShape: [1, SIDE, SIDE] as const, labels: LABELS.slice(0, 4) };

/** Opens a model whose errors have gradients. */
const smooth = async (_: string, options: OpenModelOptions) => {
  const candidates = options.unconditional
    ? [{ label: '', classidx: -1 }]
    : (options.candidates?.(summary) ?? []);
  const levels = (options.levels?.(summary) ?? []).length || 4;
  return Object.assign(smoothModel({ classes: 4, side: SIDE, levels }), { candidates });
};

describe('evaluate', () => {
  const setOf = () => {
    const folder = temporaryFolder();
    for (const [k, label] of summary.labels.entries())
      write(folder, { [`set/${label}/${k}.png`]: greyPng(60 * k) });
    write(folder, { 'weights.txt': '1\n2\n3\n4\n', 'truth.csv': 'path,label\n' });
    return folder;
  };
  const ATTACKED = ['--attacks', 'pgd', '--steps', '2', '--eps', '0.1'];
  const PURIFIED = ['--attacks', 'none', '--purify', 'lm-adam', '--purify-steps', '1'];
  const DIFFUSED = ['--attacks', 'none', '--purify', 'diffpure', '--purify-t-star', '20'];

  test.each<[base: readonly string[], changed: readonly string[], name: string]>([
    [ATTACKED, ['--eps', '0.2'], 'eps'],
    [ATTACKED, ['--norm', 'l2'], 'norm'],
    [ATTACKED, ['--seed', '1'], 'seed'],
    [ATTACKED, ['--steps', '3'], 'attackSteps'],
    [ATTACKED, ['--restarts', '2'], 'restarts'],
    [ATTACKED, ['--step-size', '0.01'], 'attackStepSize'],
    [ATTACKED, ['--eot', '2'], 'eot'],
    [ATTACKED, ['--levels-per-step', '2'], 'levelsPerStep'],
    [ATTACKED, ['--attacks', 'apgd-ce'], 'plans'],
    [ATTACKED, ['--loss', 'l1'], 'loss'],
    [ATTACKED, ['--timesteps', 'even:2'], 'timesteps'],
    [ATTACKED, ['--weighting', 'FOLDER/weights.txt'], 'weighting'],
    [ATTACKED, ['--labels', LABELS.slice(0, 3).join(',')], 'labels'],
    [PURIFIED, ['--purify', 'lm-momentum'], 'purify'],
    [PURIFIED, ['--purify-steps', '2'], 'purifySteps'],
    [PURIFIED, ['--purify-eps', '0.2'], 'purifyEps'],
    [PURIFIED, ['--purify-norm', 'l2'], 'purifyNorm'],
    [PURIFIED, ['--purify-step-size', '0.3'], 'purifyStepSize'],
    [PURIFIED, ['--purify-sigmas', '0.5'], 'purifySigmas'],
    [PURIFIED, ['--gradient', 'full'], 'gradient'],
    [DIFFUSED, ['--purify-t-star', '30'], 'purifyTStar'],
  ])('%j, then %j: refused by %s', async (base, changed, name) => {
    const folder = setOf();
    const argv = ['evaluate', join(folder, 'set'), ...base, '-q', '-o', join(folder, 'o')];
    const first = await cli(argv, smooth);
    expect([first.err, first.status]).toEqual(['', 0]);
    const log = readFileSync(join(folder, 'o.log.jsonl'), 'utf8');
    const more = changed.map((text) => text.replace('FOLDER', folder));
    const { status, err } = await cli([...argv, '--resume', ...more], smooth);
    expect(err).toContain('was made with other settings');
    expect(/\(([^)]*)\)/.exec(err)?.[1]?.split(', ')).toContain(name);
    expect([status, readFileSync(join(folder, 'o.log.jsonl'), 'utf8')]).toEqual([2, log]);
  });

  test.each(['eps', 'seed', 'set', 'model', 'weights', 'plans', 'attackSteps', 'eot', 'randomness'])(
    'rejects a log with another %s',
    async (name) => {
      const folder = setOf();
      const argv = ['evaluate', join(folder, 'set'), ...ATTACKED, '-q', '-o', join(folder, 'o')];
      expect((await cli(argv, smooth)).status).toBe(0);
      const log = join(folder, 'o.log.jsonl');
      const [heading, ...results] = linesOf(readFileSync(log, 'utf8'));
      expect(Object.keys(heading.evaluation)).toContain(name);
      heading.evaluation[name] = 'another';
      writeFileSync(log, [heading, ...results].map((line) => `${JSON.stringify(line)}\n`).join(''));
      const { status, err } = await cli([...argv, '--resume'], smooth);
      expect(status).toBe(2);
      expect(err).toContain(`other settings (${name})`);
    },
  );
});

interface Command {
  readonly argv: (folder: string) => readonly string[];
  readonly open: typeof smooth | ReturnType<typeof fakeFolder>;
  readonly fields: readonly string[];
}

/** Commands that write a record next to their output, with all its fields. */
const COMMANDS: Readonly<Record<string, Command>> = {
  classify: {
    argv: (folder) => [join(folder, 'in')],
    open: fakeFolder(),
    fields: [
      'model',
      'model files',
      'images',
      'levels',
      'loss',
      'seed',
      'noise',
      'candidates',
      'strategy',
      'budget',
      'purify',
      'top-k',
      'energy',
      'timings',
    ],
  },
  match: {
    argv: (folder) => ['match', join(folder, 'pairs.csv')],
    open: fakeFolder({ summary: TEXT_SUMMARY }),
    fields: ['model', 'model files', 'image size', 'levels', 'loss', 'weighting', 'seed', 'noise'],
  },
};

describe.each(Object.entries(COMMANDS))('%s', (_, { argv, open, fields }) => {
  const made = async () => {
    const folder = temporaryFolder();
    goodImages(join(folder, 'in'), 2);
    write(folder, { 'a.png': greyPng(1), 'b.png': greyPng(2) });
    write(folder, { 'pairs.csv': 'item,image,caption\nx,a.png,a\nx,b.png,b\n' });
    const output = join(folder, 'o.jsonl');
    const words = [...argv(folder), '-q', '-o', output];
    expect((await cli(words, open)).status).toBe(0);
    return { words, output, record: `${output}.run.json` };
  };

  test('writes a record with exactly these fields', async () => {
    const { record } = await made();
    expect(Object.keys(JSON.parse(readFileSync(record, 'utf8')).settings).sort()).toEqual([...fields].sort());
  });

  test.each(fields)('rejects a record with another %s', async (field) => {
    const { words, output, record } = await made();
    const { settings } = JSON.parse(readFileSync(record, 'utf8'));
    writeFileSync(record, JSON.stringify({ settings: { ...settings, [field]: 'another' } }));
    const before = readFileSync(output, 'utf8');
    const { status, err } = await cli([...words, '--resume'], open);
    expect(err).toContain(`${field} was another, now `);
    expect([status, readFileSync(output, 'utf8')]).toEqual([2, before]);
  });
});

test('classify drops the torn last line of --errors before it continues', async () => {
  const folder = temporaryFolder();
  goodImages(join(folder, 'in'), 2);
  const output = join(folder, 'o.jsonl');
  const errors = join(folder, 'errors.jsonl');
  const argv = [join(folder, 'in'), '-q', '--strategy', 'all', '-o', output, '--errors', errors, '--resume'];
  expect((await cli(argv)).status).toBe(0);
  const whole = linesOf(readFileSync(errors, 'utf8'));
  // The program was killed in the middle of a line of the second image, which then has no result yet.
  const lines = readFileSync(errors, 'utf8').split('\n');
  truncateSync(errors, lines.slice(0, 100).join('\n').length + 20);
  truncateSync(output, readFileSync(output, 'utf8').indexOf('\n') + 1);
  appendFileSync(output, '{"path":"to');
  expect((await cli(argv)).status).toBe(0);
  const resumed = linesOf(readFileSync(errors, 'utf8'));
  expect(resumed).toHaveLength(100 + whole.length / 2);
  expect(resumed.slice(0, 100)).toEqual(whole.slice(0, 100));
});
