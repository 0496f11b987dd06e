// Tests that the range of `--dry-run` contains the time of the real run, for four models and the installed program.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import type { Estimate } from '../../src/pipeline/command/subcommands/classify/estimate.ts';
import { linesOf } from './captured-cli.ts';

const ROOT = join(import.meta.dirname, '../..');
const CLI = join(ROOT, 'src/pipeline/command/cli.ts');
const SAMPLES = join(ROOT, 'weights/fashion-mnist/samples');
const TEXT = join(ROOT, 'test/golden/pipeline-sd1');

const program = async (argv: readonly string[]) =>
  (await promisify(execFile)(process.execPath, ['--import', 'tsx', CLI, ...argv])).stdout;

test.each<[what: string, argv: readonly string[]]>([
  ['fashion-mnist-multi-head', [SAMPLES]],
  ['fashion-mnist', ['--model', 'fashion-mnist', '--budget', '200', SAMPLES]],
  ['cifar-10', ['--model', 'cifar-10', '--sigmas', 'linspace:0.1:2:6', SAMPLES]],
  [
    'a text model of random weights',
    ['--model', TEXT, '--prompts', join(TEXT, 'prompts.csv'), '--timesteps', 'even:20', join(TEXT, 'images')],
  ],
])('%s', async (_, argv) => {
  const estimate: Estimate = JSON.parse(await program(['--dry-run', '--format', 'jsonl', ...argv]));
  const begun = performance.now();
  const results = linesOf(await program(['--quiet', '--format', 'jsonl', ...argv]));
  const seconds = (performance.now() - begun) / 1000;
  expect(results).toHaveLength(estimate.images);
  for (const { evaluations } of results) {
    expect(evaluations).toBeGreaterThanOrEqual(estimate.evaluations.least);
    expect(evaluations).toBeLessThanOrEqual(estimate.evaluations.most);
  }
  const { least, most } = estimate.seconds.all;
  expect(most).toBeGreaterThanOrEqual(least);
  // Times mean nothing on a machine that runs other tests.
  if (process.env.LONG_TRIALS !== '1') return;
  expect(seconds).toBeGreaterThanOrEqual(least);
  expect(seconds).toBeLessThanOrEqual(most);
});
