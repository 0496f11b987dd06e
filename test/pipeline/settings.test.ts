import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  candidatesByName,
  candidatesByPrompt,
  nearest,
  readPrompts,
} from '../../src/pipeline/command/candidates.ts';
import { createCommand } from '../../src/pipeline/command/command.ts';
import { checkModel, modelFolder, modelOptions } from '../../src/pipeline/command/modelchoice.ts';
import { readSettings } from '../../src/pipeline/command/settings.ts';
import { fakeModel } from './fake.ts';
import { LABELS, SUMMARY } from './fakefolder.ts';
import { temporaryFolder, write } from './imagefiles.ts';

const settingsOf = (...argv: readonly string[]) => {
  const command = createCommand('0', { out: () => {}, err: () => {} });
  command.parse([...argv], { from: 'user' });
  return readSettings(command.args, command.opts());
};

describe('options', () => {
  test('defaults are the contract', () => {
    expect(settingsOf('a.png')).toMatchObject({
      inputs: ['a.png'],
      nul: false,
      model: 'fashion-mnist',
      strategy: 'sequential',
      seed: 0,
      output: '-',
      format: 'jsonl',
      topK: 5,
      resume: false,
      quiet: false,
      batch: undefined,
      concurrency: undefined,
      budget: undefined,
      labels: undefined,
    });
  });

  test('every option', () => {
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
      nSamples: [50, 500],
      toKeep: [5, 1],
      budget: 100,
      timesteps: 'even:10',
      loss: 'l1',
      seed: 7,
      topK: 3,
      imageSize: 512,
      batch: 64,
      concurrency: 4,
      quiet: true,
    });
  });

  test('-0 alone reads standard input', () => {
    expect(settingsOf('-0')).toMatchObject({ inputs: ['-'], nul: true });
  });

  test.each([
    ['', 'no INPUT'],
    ['- -', 'standard input can be read only once'],
    ['a --strategy best', '--strategy: wanted sequential, staged or all, got "best"'],
    ['a --budget 0', '--budget: wanted an integer of 1 or more, got "0"'],
    ['a --budget 1e3', '--budget: wanted'],
    ['a --batch many', '--batch: wanted auto or an integer of 1 or more, got "many"'],
    ['a --confidence 1', '--confidence: wanted a number between 0 and 1'],
    ['a --seed -1', '--seed: wanted an integer from 0 to'],
    ['a --n-samples 5,x', '--n-samples: wanted'],
    ['a --strategy staged', '--strategy staged wants --n-samples and --to-keep'],
    ['a --strategy staged --n-samples 5,50 --to-keep 1', '--n-samples has 2 stages, --to-keep 1'],
    ['a --to-keep 1', 'belong to --strategy staged'],
    ['a --strategy all --confidence 0.9', '--confidence belongs to'],
    ['a --timesteps even:5 --sigmas linspace:1:2:3', 'exclude each other'],
    ['a --timesteps 5', '--timesteps: wanted even:N'],
    ['a --prompts p --labels A', 'exclude each other'],
    ['a --template {}', '--template wants --labels'],
    ['a --labels A --template photo', '--template: wanted a text with {}'],
    ['a --labels A,,B', '--labels: wanted names separated by commas'],
    ['a --resume', '--resume wants --output FILE'],
    ['a --errors x --output x', 'same file'],
    ['a --log-level loud', '--log-level: wanted silent'],
  ])('%s', (line, message) => {
    expect(() => settingsOf(...line.split(' ').filter(Boolean))).toThrow(message);
  });
});

describe('candidates', () => {
  test('by name, whatever the case; the order is that of the names', () => {
    expect(candidatesByName(['fox', 'ANT'], LABELS)).toEqual([
      { label: 'fox', classidx: 5 },
      { label: 'ant', classidx: 0 },
    ]);
  });

  test('classes that differ only by case are told apart', () => {
    expect(candidatesByName(['Polish'], ['polish', 'Polish'])).toEqual([{ label: 'Polish', classidx: 1 }]);
    expect(() => candidatesByName(['POLISH'], ['polish', 'Polish'])).toThrow('no class "POLISH"');
  });

  test('an unknown name comes with the nearest, a name given twice is refused', () => {
    expect(() => candidatesByName(['foxx'], LABELS)).toThrow(
      'the model has no class "foxx"; the nearest is "fox"',
    );
    expect(() => candidatesByName(['fox', 'Fox'], LABELS)).toThrow('"Fox" is given twice');
    expect(nearest('bee', [])).toBeUndefined();
  });

  test('a table of prompts, rows of a class being one candidate', async () => {
    const folder = temporaryFolder();
    write(folder, {
      'p.csv':
        '\ufeffprompt,classname,classidx,more\n"a photo, of a cat",cat,2,x\nanother cat,cat,2,\nfox,fox,5,\n',
    });
    const rows = await readPrompts(join(folder, 'p.csv'));
    expect(rows[0]).toEqual({ prompt: 'a photo, of a cat', classname: 'cat', classidx: 2 });
    expect(candidatesByPrompt(rows, LABELS)).toEqual([
      { label: 'cat', classidx: 2 },
      { label: 'fox', classidx: 5 },
    ]);
    expect(() => candidatesByPrompt(rows, LABELS.slice(0, 3))).toThrow(
      'classidx 5 (fox); the model has 0 to 2',
    );
  });

  test.each([
    ['prompt,classname\na,b\n', 'classidx is missing'],
    ['prompt,classname,classidx\na,b,x\n', 'line 2: classidx is "x"'],
    ['prompt,classname,classidx\n', 'holds no prompts'],
    ['prompt,classname,classidx\n"a,b,1\n', 'is not CSV'],
  ])('%j', async (text, message) => {
    const folder = temporaryFolder();
    write(folder, { 'p.csv': text });
    await expect(readPrompts(join(folder, 'p.csv'))).rejects.toThrow(message);
  });
});

describe('the model', () => {
  test('levels of the model, of a grid, and of a file of weights', async () => {
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
      '2 weights',
    );
    await expect(levels('--weighting', join(folder, 'bad'))).rejects.toThrow('wanted numbers');
    await expect(levels('--weighting', 'nonsense')).rejects.toThrow('"nonsense" cannot be read (ENOENT)');
    await expect(levels('--sigmas', 'linspace:1:2:3')).rejects.toThrow('fake has timesteps');
  });

  test('folders, names, sizes', async () => {
    const folder = temporaryFolder();
    expect(await modelFolder(folder)).toBe(folder);
    expect(await modelFolder('./missing')).toBe('./missing');
    await expect(modelFolder('fashion-mnits')).rejects.toThrow('no folder "fashion-mnits"; shipped models:');
    expect(() => checkModel(settingsOf('a', '--image-size', '512'), fakeModel())).toThrow(
      'takes images of 2x2, got 512',
    );
    await expect(modelOptions(settingsOf('a', '--noise', join(folder, 'n')))).rejects.toThrow('--noise');
  });
});
