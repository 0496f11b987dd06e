import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Level } from '../../src/graph/model.ts';
import { importanceLevels, rdcLevels } from '../../src/graph/sigmas.ts';
import { commonOptions, createCommand } from '../../src/pipeline/command/command.ts';
import { PRESETS } from '../../src/pipeline/command/options/presets.ts';
import { readOptions } from '../../src/pipeline/command/options/table.ts';
import { modelOptions } from '../../src/pipeline/command/shared/model-choice.ts';
import { modelFolder } from '../../src/pipeline/command/shared/model-folder.ts';
import { classify } from '../../src/pipeline/command/subcommands/classify/classify.ts';
import { readSettings } from '../../src/pipeline/command/subcommands/classify/classify-settings.ts';
import { SUMMARY, TEXT_SUMMARY } from './fake-folder.ts';
import { fakeCandidates, runTrial } from './fake-model.ts';
import { temporaryFolder, write } from './image-files.ts';

const settingsOf = (...argv: readonly string[]) => {
  const command = createCommand(classify, { out: () => {}, err: () => {} });
  command.parse([...argv], { from: 'user' });
  readOptions(commonOptions(classify), command.opts());
  return readSettings(command.args, command.opts());
};

describe('options', () => {
  test('have the defaults of the contract', () => {
    expect(settingsOf('a.png')).toMatchObject({
      inputs: ['a.png'],
      nul: false,
      model: 'fashion-mnist-multi-head',
      deciding: { record: 'sequential, default confidence' },
      seed: 0,
      output: '-',
      format: undefined,
      topK: 5,
      resume: false,
      batch: undefined,
      concurrency: undefined,
      budget: undefined,
      labels: undefined,
      preset: undefined,
      dryRun: false,
    });
  });

  test('--template is one text', () => {
    const settings = settingsOf('a', '--labels', 'cat', '--template', 'a {}', '--template', 'two {}s');
    expect(settings.template).toEqual(['a {}', 'two {}s']);
    expect(() => settingsOf('a', '--labels', 'cat', '--template', 'a {}', '--template', 'x')).toThrow(
      '--template: expected a text with {} in place of the name, got "a {},x"',
    );
  });

  test('are all parsed', () => {
    const settings = settingsOf(
      ...'--model m --labels A,"B,C" --strategy staged --n-samples 50,500 --to-keep 5,1 --budget 100'.split(
        ' ',
      ),
      ...'--timesteps even:10 --loss l1 --weighting uniform --seed 7 --noise n.safetensors --output out'.split(
        ' ',
      ),
      ...'--format csv --top-k 3 --errors e --resume --image-size 512 --batch 64 --concurrency 4 -q -0 x -'.split(
        ' ',
      ),
    );
    expect(settings).toMatchObject({
      inputs: ['x', '-'],
      nul: true,
      labels: ['A', 'B,C'],
      deciding: { record: 'staged 50,500 to 5,1', gridLength: 500 },
      budget: 100,
      timesteps: 'even:10',
      loss: 'l1',
      seed: 7,
      topK: 3,
      imageSize: 512,
      batch: 64,
      concurrency: 4,
    });
  });

  test('-0 without inputs reads standard input', () => {
    expect(settingsOf('-0')).toMatchObject({ inputs: ['-'], nul: true });
  });

  test.each([
    ['', 'no INPUT'],
    ['- -', 'standard input can be read only once'],
    ['a --strategy best', '--strategy: expected sequential, staged or all, got "best"'],
    ['a --budget 0', '--budget: expected an integer of 1 or more, got "0"'],
    ['a --budget 1e3', '--budget: expected'],
    ['a --batch many', '--batch: expected auto or an integer of 1 or more, got "many"'],
    ['a --confidence 1', '--confidence: expected a number between 0 and 1'],
    ['a --seed -1', '--seed: expected an integer from 0 to'],
    ['a --n-samples 5,x', '--n-samples: expected'],
    ['a --strategy staged', '--strategy staged needs --n-samples and --to-keep'],
    ['a --strategy staged --n-samples 5,50 --to-keep 1', '--n-samples has 2 stages, --to-keep has 1'],
    ['a --to-keep 1', '--to-keep belongs to --strategy staged'],
    ['a --strategy all --confidence 0.9', '--confidence belongs to'],
    ['a --timesteps even:5 --sigmas linspace:1:2:3', 'exclude each other'],
    ['a --sigmas even:5', '--sigmas: expected linspace:A:B:N, importance:N'],
    ['a --timesteps 5', '--timesteps: expected even:N'],
    ['a --prompts p --labels A', 'exclude each other'],
    ['a --template {}', '--template needs --labels'],
    ['a --labels A --template photo', '--template: expected a text with {}'],
    ['a --labels A,,B', '--labels: expected names separated by commas'],
    ['a --resume', '--resume needs --output FILE'],
    ['a --errors x --output x', 'same file'],
    ['a --log-level loud', '--log-level: expected silent'],
    ['a --preset paper', '--preset: expected paper-cifar10, '],
    ['a --preset toString', '--preset: expected paper-cifar10, '],
    ['a --preset paper-pets --n-samples 5', '--n-samples has 1 stages, --to-keep has 2'],
  ])('%s', (line, message) => {
    expect(() => settingsOf(...line.split(' ').filter(Boolean))).toThrow(message);
  });
});

describe('presets', () => {
  /** The table of Li et al., with their numbers of evaluations per image. */
  test.each([
    ['paper-food101', 101, [20, 50, 100, 500], [20, 10, 5, 1], 'l2', 5570],
    ['paper-cifar10', 10, [50, 500], [5, 1], 'l1', 2750],
    ['paper-aircraft', 100, [20, 50, 100, 500], [20, 10, 5, 1], 'l2', 5550],
    ['paper-pets', 37, [25, 250], [5, 1], 'l1', 2050],
    ['paper-flowers', 102, [20, 50, 100, 500], [20, 10, 5, 1], 'l1', 5590],
    ['paper-stl10', 10, [100, 500], [5, 1], 'l1', 3000],
    ['paper-imagenet', 1000, [50, 100, 500, 1000], [500, 50, 10, 1], 'l2', 124_500],
    ['paper-objectnet', 113, [50, 100, 500, 1000], [25, 10, 5, 1], 'l2', 14_400],
    ['paper-cifar100', 100, [20, 50, 100, 500], [20, 10, 5, 1], 'l1', 5550],
  ])('%s', async (name, classes, nSamples, toKeep, loss, evaluations) => {
    const settings = settingsOf('a', '--preset', name);
    expect(settings).toMatchObject({
      deciding: { record: `staged ${nSamples} to ${toKeep}` },
      loss,
    });
    const levels = (await modelOptions(settings)).levels!(TEXT_SUMMARY);
    const densest = Math.max(...nSamples);
    const step = 1000 / densest;
    expect(levels.map(({ t }) => t!).sort((a, b) => a - b)).toEqual(
      Array.from({ length: densest }, (_, k) => Math.floor(step / 2) + k * step),
    );
    expect(levels.every(({ weight }) => weight === 1)).toBe(true);
    const trial = runTrial(
      settings.deciding.strategy,
      { candidates: fakeCandidates(classes), levels },
      (c) => c,
    );
    expect(trial.evaluations).toBe(evaluations);
  });

  test('paper-pets visits t = 22, 62, ..., 982 first; the grid is t = 2, 6, ..., 998', async () => {
    const settings = settingsOf('a', '--preset', 'paper-pets');
    const levels = (await modelOptions(settings)).levels!(TEXT_SUMMARY);
    const { visited } = runTrial(
      settings.deciding.strategy,
      { candidates: fakeCandidates(3), levels },
      (c) => c,
    );
    const ts = visited.map((level) => levels[level]!.t!);
    expect(ts.slice(0, 25)).toEqual(Array.from({ length: 25 }, (_, k) => 22 + 40 * k));
    expect([...ts].sort((a, b) => a - b)).toEqual(Array.from({ length: 250 }, (_, k) => 2 + 4 * k));
  });

  test('paper-dit visits every class at t = 2, 6, ..., 998', async () => {
    const settings = settingsOf('a', '--preset', 'paper-dit');
    expect(settings).toMatchObject({ deciding: { record: 'all' }, loss: 'l2' });
    const levels = (await modelOptions(settings)).levels!(SUMMARY);
    expect(levels.map(({ t }) => t!).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 250 }, (_, k) => 2 + 4 * k),
    );
  });

  test('explicit options override the preset, and drop its settings that do not fit them', () => {
    expect(
      settingsOf('a', '--preset', 'paper-cifar10', '--n-samples', '25,250', '--loss', 'l2'),
    ).toMatchObject({
      deciding: { record: 'staged 25,250 to 5,1' },
      loss: 'l2',
      timesteps: undefined,
    });
    expect(settingsOf('a', '--preset', 'paper-cifar10', '--strategy', 'all')).toMatchObject({
      deciding: { record: 'all' },
      timesteps: 'even:500',
      loss: 'l1',
    });
    expect(settingsOf('a', '--preset', 'fast', '--confidence', '0.95')).toMatchObject({
      deciding: { record: 'sequential, 0.95 confidence' },
      timesteps: 'even:50',
    });
    const continuous = settingsOf('a', '--preset', 'fast', '--sigmas', 'linspace:1:2:3', '--strategy', 'all');
    expect(continuous).toMatchObject({ deciding: { record: 'all' }, timesteps: undefined });
  });

  test('every preset can be typed', () => {
    for (const name of Object.keys(PRESETS)) expect(settingsOf('a', '--preset', name).preset).toBe(name);
  });
});

describe('the model', () => {
  test('may have levels of its own, of a grid, and of a file of weights', async () => {
    const levels = async (...argv: readonly string[]) =>
      (await modelOptions(settingsOf('a', ...argv))).levels?.(SUMMARY);
    expect(await levels()).toBe(SUMMARY.levels);
    const grid = await levels('--timesteps', 'even:4');
    expect(grid?.map(({ t }) => t).sort((a, b) => a! - b!)).toEqual([125, 375, 625, 875]);
    expect(grid?.map(({ weight }) => weight)).toEqual([1, 1, 1, 1]);
    const folder = temporaryFolder();
    write(folder, { w: '[1, 2,\n3, 4]', short: '1 2', bad: '1 two' });
    const weighted = await levels('--timesteps', 'even:4', '--weighting', join(folder, 'w'));
    for (const { t, weight } of weighted!) expect(weight).toBe((t! - 125) / 250 + 1);
    await expect(levels('--timesteps', 'even:4', '--weighting', join(folder, 'short'))).rejects.toThrow(
      'expected 4 weights, one per level of the grid, got 2',
    );
    await expect(levels('--weighting', join(folder, 'bad'))).rejects.toThrow('expected nothing but numbers');
    await expect(levels('--weighting', 'nonsense')).rejects.toThrow('"nonsense" cannot be read (ENOENT)');
    await expect(levels('--sigmas', 'linspace:1:2:3')).rejects.toThrow('fake has timesteps');
    const schedule = ['--strategy', 'staged', '--n-samples', '2,4', '--to-keep', '2,1'];
    expect((await levels(...schedule))?.map(({ t }) => t).sort()).toEqual([125, 375, 625, 875]);
    expect(await levels(...schedule, '--timesteps', 'even:8')).toHaveLength(8);
  });

  test('may have levels of sigmas', async () => {
    const own = [{ sigma: 0.5, weight: 3 }];
    const summary = { ...SUMMARY, levels: own };
    const levels = async (...argv: readonly string[]) =>
      (await modelOptions(settingsOf('a', ...argv))).levels?.(summary);
    const rising = (actual: readonly Level[] | undefined) => [...actual!].sort((a, b) => a.sigma! - b.sigma!);
    expect(await levels()).toBe(own);
    // RDC's weights by default, in another order than that of the grid.
    const rdc = await levels('--sigmas', 'linspace:1e-4:3:126');
    expect(rising(rdc)).toEqual(rdcLevels());
    expect(rdc).not.toEqual(rdcLevels());
    const elbo = rising(await levels('--sigmas', '2,1,4', '--weighting', 'elbo'));
    expect(elbo.map(({ weight }) => weight)).toEqual([1, 1 / 4, 1 / 32]);
    expect(await levels('--sigmas', 'linspace:1:2:3', '--weighting', 'uniform')).toHaveLength(3);
    const placed = rising(await levels('--sigmas', 'importance:9', '--weighting', 'lognormal'));
    expect(placed).toEqual(importanceLevels(9, 'lognormal'));
    expect(await levels('--weighting', 'uniform')).toEqual([{ sigma: 0.5, weight: 1 }]);
    const schedule = ['--strategy', 'staged', '--n-samples', '5,20', '--to-keep', '2,1'];
    expect(await levels(...schedule)).toHaveLength(20);
    await expect(levels('--sigmas', 'importance:9', '--weighting', 'uniform')).rejects.toThrow(
      'expected a weighting that sigmas can be placed by',
    );
    await expect(levels('--timesteps', 'even:4')).rejects.toThrow('the model has sigmas, not timesteps');
  });

  test('rejects a weighting over sigma if it has timesteps', async () => {
    const options = await modelOptions(settingsOf('a', '--weighting', 'rdc-code'));
    expect(() => options.levels!(SUMMARY)).toThrow('"rdc-code" needs sigmas; this grid has timesteps');
  });

  test('is found by folder or name, and has sizes', async () => {
    const folder = temporaryFolder();
    expect(await modelFolder(folder)).toBe(folder);
    expect(await modelFolder('./missing')).toBe('./missing');
    await expect(modelFolder('fashion-mnits')).rejects.toThrow(
      '--model: no model "fashion-mnits": expected a model folder, or one of the shipped models cifar-10, fashion-mnist',
    );
    await expect(modelOptions(settingsOf('a', '--noise', join(folder, 'n')))).rejects.toThrow('--noise');
    const sized = async (side: string, model = SUMMARY) => {
      const options = await modelOptions(settingsOf('a', '--image-size', side));
      options.levels!(model);
      return options.imageSize;
    };
    expect(await sized('2')).toBe(2);
    expect(await sized('256', TEXT_SUMMARY)).toBe(256);
    await expect(sized('512')).rejects.toThrow('--image-size: fake takes images of 2x2, got 512');
    await expect(sized('257', TEXT_SUMMARY)).rejects.toThrow(
      '--image-size: fake takes multiples of 2, got 257',
    );
  });
});
