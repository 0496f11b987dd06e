// Tests the exit statuses of the command line, in this process, with a fake model and captured streams.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { DeviceLostError, ModelError, NoDeviceError, UnsupportedError } from '../../src/errors.ts';
import { main } from '../../src/pipeline/command/main.ts';
import type { OpenFolder } from '../../src/pipeline/command/shared/model-choice.ts';
import { cli } from './captured-cli.ts';
import { fakeDescribe, fakeFolder, TEXT_SUMMARY } from './fake-folder.ts';
import { temporaryFolder, write } from './image-files.ts';

describe('exit statuses', () => {
  const throwing =
    (error: Error): OpenFolder =>
    () =>
      Promise.reject(error);

  test.each([
    ['usage', [], fakeFolder(), 2, 'no INPUT'],
    ['unknown option', ['--frobnicate', 'x'], fakeFolder(), 2, "unknown option '--frobnicate'"],
    ['planned subcommand', ['certify', 'x'], fakeFolder(), 2, '"certify" is not part of this version'],
    ['unknown label', ['--labels', 'foxx', 'x'], fakeFolder(), 2, 'the nearest is "fox"'],
    [
      'template for a class-conditional model',
      ['--labels', 'fox', '--template', 'a {}', 'x'],
      fakeFolder(),
      2,
      'text models',
    ],
    [
      'a text model without candidates',
      ['x'],
      fakeFolder({ summary: TEXT_SUMMARY }),
      2,
      'fake reads text and has no classes of its own: give the classes to choose between, with --labels A,B,... or',
    ],
    [
      'a size that the model cannot take',
      ['--labels', 'a,b', '--image-size', '7', 'x'],
      fakeFolder({ summary: TEXT_SUMMARY }),
      2,
      '--image-size: fake takes multiples of 2, got 7',
    ],
    [
      'a size for a model with a fixed size',
      ['--image-size', '6', 'x'],
      fakeFolder(),
      2,
      '--image-size: fake takes images of 2x2, got 6',
    ],
    ...[
      'm/model_index.json: the pipeline "StableDiffusionXLPipeline" is not supported, wanted ...',
      'm/unet/diffusion_pytorch_model.bin: weights in a pickle can run code and are not read, convert them ...',
      'm/tokenizer: neither tokenizer.json nor vocab.json and merges.txt is there',
      'm/text_encoder/config.json: vocab_size is 100, the tokenizer has 49408 tokens',
      'm/scheduler/scheduler_config.json: no such file',
    ].map(
      (sentence) =>
        [sentence, ['--labels', 'a', 'x'], throwing(new ModelError(sentence)), 3, sentence] as [
          string,
          string[],
          OpenFolder,
          number,
          string,
        ],
    ),
    ['unsupported', ['x'], throwing(new UnsupportedError('dual_cross_attention')), 3, 'dual_cross_attention'],
    ['model', ['x'], throwing(new ModelError('unet/config.json: broken')), 3, 'unet/config.json: broken'],
    ['device', ['x'], throwing(new NoDeviceError('no adapter')), 4, 'no adapter'],
    ['lost device', ['x'], throwing(new DeviceLostError('gone')), 4, 'gone'],
    ['internal error', ['x'], throwing(new TypeError('oops')), 70, 'oops'],
  ])('%s', async (_, argv, openModel, status, message) => {
    const stderr: string[] = [];
    const stdout = new PassThrough();
    const args = argv[0] === 'certify' ? argv : ['--model', './fake', ...argv];
    const actual = await main(args, {
      openModel,
      describe: fakeDescribe(),
      stdout,
      stderr: { write: (text) => stderr.push(text) },
    });
    expect(actual).toBe(status);
    expect(stderr.join('')).toContain(message);
    if (status === 3) expect(stderr.join('')).toBe(`diffclass-stream: ${message}\n`);
    expect(stdout.read()).toBeNull();
  });

  test('a rejected model leaves the output unchanged', async () => {
    const folder = temporaryFolder();
    const output = join(folder, 'out');
    writeFileSync(output, 'precious\n');
    expect((await cli(['--output', output, folder], throwing(new ModelError('broken')))).status).toBe(3);
    expect(readFileSync(output, 'utf8')).toBe('precious\n');
  });

  test.each([
    ['evalute', 'evaluate'],
    ['Classfy', 'classify'],
    ['purfiy', 'purify'],
  ])('%s photos: did you mean %s?', async (typed, meant) => {
    const { status, out, err } = await cli([typed, '.']);
    expect([status, out]).toEqual([2, '']);
    expect(err).toBe(
      `diffclass-stream: "${typed}" is neither a command nor a file; did you mean ${meant}?\n`,
    );
  });

  test('prints no rate if nothing was done', async () => {
    const folder = temporaryFolder();
    expect((await cli([folder])).err).toMatch(/^diffclass-stream: no images found \(/);
    write(folder, { 'a.png': 'hello' });
    const { err } = await cli([folder]);
    expect(err).toContain('diffclass-stream: no image could be classified, 1 failed\n');
    expect(err).not.toContain('images/s');
  });

  test('help and version are results', async () => {
    const help = await cli(['--help']);
    expect(help.status).toBe(0);
    expect(help.out).toContain('Usage: diffclass-stream [classify] [options] INPUT...');
    for (const option of [
      '--model',
      '--prompts',
      '--labels',
      '--template',
      '--strategy',
      '--n-samples',
      '--to-keep',
      '--confidence',
      '--budget',
      '--timesteps',
      '--sigmas',
      '--loss',
      '--weighting',
      '--seed',
      '--noise',
      '--output',
      '--format',
      '--top-k',
      '--errors',
      '--resume',
      '--image-size',
      '--batch',
      '--concurrency',
      '--quiet',
      '--log-level',
      '--preset',
      '--dry-run',
    ])
      expect(help.out).toContain(option);
    expect((await cli(['--version'])).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});
