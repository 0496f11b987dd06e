import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { describe, expect, it, test } from 'vitest';
import { rdcLevels, sumTemperature } from '../../src/graph/sigmas.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import { createCommand } from '../../src/pipeline/command/command.ts';
import { takeUp } from '../../src/pipeline/command/shared/earlier-results.ts';
import { headerOf, lineOf } from '../../src/pipeline/command/shared/result-lines.ts';
import { classify } from '../../src/pipeline/command/subcommands/classify/classify.ts';
import { readSettings } from '../../src/pipeline/command/subcommands/classify/classify-settings.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { energyOf } from '../../src/pipeline/deciding/energy.ts';
import { staged } from '../../src/pipeline/deciding/staged.ts';
import { startTrial } from '../../src/pipeline/deciding/trial.ts';
import { resultOf } from '../../src/pipeline/deciding/verdict.ts';
import { type Classified, isFailure } from '../../src/pipeline/types.ts';
import { cli } from './captured-cli.ts';
import { collect, fakeCandidates, fakeModel, hash, images, runTrial } from './fake-model.ts';
import { goodImages, temporaryFolder, write } from './image-files.ts';

const levels = rdcLevels();
const temperature = sumTemperature(levels);
const info = { candidates: fakeCandidates(4), levels };
/** Returns an error of realistic size for the level's sigma; that of class 2 is a little smaller. */
const errorOf = (c: number, level: number) =>
  Math.fround(levels[level]!.sigma ** 2 * (0.2 + 0.02 * hash(c, level) - (c === 2 ? 0.015 : 0)));

/** The released formula: logit_c = -Σ w_i e_ci. */
const logits = info.candidates.map((_, c) =>
  levels.reduce((sum, { weight }, l) => sum - weight * errorOf(c, l), 0),
);
const likelihoods = logits.map(Math.exp);
const evidence = likelihoods.reduce((a, b) => a + b, 0);

describe("RDC's posterior and energies", () => {
  const trial = runTrial(all(), info, errorOf);
  const result = resultOf({ path: 'x', trial, started: 0 }, { name: 'm', temperature }, { energy: true });

  it('probabilities are the softmax of -Σ weight · error', () => {
    expect(result.label).toBe('class 2');
    expect(result.top).toHaveLength(4);
    for (const { classidx, probability } of result.top)
      expect(probability).toBeCloseTo(likelihoods[classidx]! / evidence, 12);
  });

  it('energies are its logits, and their log-mean-exp', () => {
    for (const { classidx, energy } of result.top) expect(energy).toBeCloseTo(-logits[classidx]!, 9);
    expect(result.energy).toBeCloseTo(-Math.log(evidence / 4), 9);
    expect(result.energyLevels).toBe(125);
  });

  it('the posterior after an early stop is that of extrapolated sums', () => {
    // Every other level gives sums of half the size, which must not halve the logits.
    const half = { ...trial, visited: trial.visited.filter((_, k) => k % 2 === 0) };
    const errors = trial.errors.filter((_, k) => k % 2 === 0);
    const { classes, energyLevels } = energyOf({ ...half, errors }, temperature);
    expect(energyLevels).toBe(63);
    for (const [classidx, energy] of classes) {
      expect(Math.abs(energy / -logits[classidx]! - 1)).toBeLessThan(0.05);
    }
  });
});

describe('energies', () => {
  const flat = [0, 1, 2, 3].map((t) => ({ t, weight: 1 }));

  it('of staged trials use the levels at which all classes were evaluated', () => {
    const strategy = staged({ nSamples: [2, 4], toKeep: [1, 1] });
    const trial = runTrial(strategy, { ...info, levels: flat }, (c, level) => (c + 1) * (level + 1));
    expect(trial.visited.slice(0, 2)).toEqual([1, 3]);
    const { energyLevels, classes } = energyOf(trial, 2);
    expect(energyLevels).toBe(2);
    expect([...classes]).toEqual([0, 1, 2, 3].map((c) => [c, ((c + 1) * 3) / 2]));
  });

  it('a class is as likely as its best prompt, and counts once', () => {
    const candidates = [7, 9, 7].map((classidx, i) => ({ label: `${classidx}`, classidx, prompt: `${i}` }));
    const trial = runTrial(all(), { candidates, levels: flat }, (c) => [3, 2, 1][c]!);
    const { energy, classes } = energyOf(trial, 1);
    expect([...classes]).toEqual([
      [7, 1],
      [9, 2],
    ]);
    expect(energy).toBeCloseTo(-Math.log((Math.exp(-1) + Math.exp(-2)) / 2), 12);
  });

  it('of one class is its own; huge ones stay finite; without evaluations there are none', () => {
    const one = runTrial(all(), { candidates: fakeCandidates(1), levels: flat }, () => 0.5);
    expect(energyOf(one, 0.25).energy).toBe(2);
    const huge = runTrial(all(), { ...info, levels: flat }, (c) => 1e4 + c);
    expect(energyOf(huge, 1).energy).toBeCloseTo(1e4 - Math.log((1 / 4) * (1 / (1 - Math.exp(-1)))), 1);
    expect(() => energyOf(startTrial({ ...info, levels: flat }), 1)).toThrow(
      'expected a trial with evaluations',
    );
  });

  it('are in a result only if requested', async () => {
    const open = async () => fakeModel();
    for (const energy of [true, false]) {
      const [result] = await collect(classifyImages(images(0, 1), open, { strategy: all(), energy }));
      if (!result || isFailure(result)) throw new Error('failed');
      expect(['energy' in result, 'energyLevels' in result, 'energy' in result.top[0]!]).toEqual(
        Array(3).fill(energy),
      );
      expect(result.energyLevels).toBe(energy ? 24 : undefined);
    }
  });
});

describe('the command line', () => {
  const settingsOf = (...argv: readonly string[]) => {
    const command = createCommand(classify, { out: () => {}, err: () => {} });
    command.parse([...argv], { from: 'user' });
    return readSettings(command.args, command.opts());
  };

  test('--energy needs levels that all classes and images share', () => {
    expect(settingsOf('a', '--strategy', 'all', '--energy').energy).toBe(true);
    expect(settingsOf('a').energy).toBe(false);
    expect(() => settingsOf('a', '--energy')).toThrow('--energy needs --strategy staged or all');
  });

  test('CSV lines have one field per column, also for failed items', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 3);
    write(folder, { 'bad.png': 'hello' });
    for (const more of [[], ['--timings']]) {
      const { out } = await cli([folder, '-q', '--strategy', 'all', '--energy', '--format', 'csv', ...more]);
      const rows = parse(out, { relax_column_count: true }) as string[][];
      const columns = 17 + more.length;
      expect(rows.map((row) => row.length)).toEqual(Array(5).fill(columns));
      const energies = rows.slice(1).map((row) => row.at(-2));
      expect(energies.filter((energy) => Number.isFinite(Number(energy || 'none')))).toHaveLength(3);
    }
  });

  test('CSV has two more columns, and a file without them cannot be resumed', async () => {
    const trial = runTrial(all(), info, errorOf);
    const result: Classified = resultOf(
      { path: 'x', trial, started: 0 },
      { name: 'm', temperature },
      { energy: true },
    );
    const header = headerOf('csv', { energy: true });
    expect(header.trim().split(',').slice(-2)).toEqual(['energy', 'energyLevels']);
    expect(lineOf(result, 'csv', { energy: true }).trim().endsWith(`,,,${result.energy},125`)).toBe(true);
    expect(lineOf(result, 'csv').trim().split(',').at(-1)).toBe('');
    const folder = temporaryFolder();
    const file = join(folder, 'r.csv');
    write(folder, { 'r.csv': header + lineOf(result, 'csv', { energy: true }) });
    expect((await takeUp(file, 'csv', { energy: true })).done.has('x')).toBe(true);
    await expect(takeUp(file, 'csv')).rejects.toThrow('expected the columns path,label');
  });
});
