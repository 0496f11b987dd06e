// How much faster is this library than the published algorithm in PyTorch, on the same weights, images and machine? Runs
// bench/reference.py (staged elimination: 50, then 500 levels, keeping 5, then 1), then this library with its defaults.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { line, measure } from './end-to-end.ts';
import { openBench } from './run.ts';
import { DATA, readTestSet } from './test-set.ts';

const script = join(import.meta.dirname, 'reference.py');

/** Runs bench/reference.py and returns its figures. Exits with status 3 if the script fails. */
function python(...args: string[]): Record<string, number> {
  const folder = mkdtempSync(join(tmpdir(), 'reference-'));
  const json = join(folder, 'figures.json');
  try {
    const { status, error } = spawnSync('python3', [script, ...args, '--json', json], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if (error || status !== 0) {
      console.error(
        'bench reference: reference.py failed. It needs python3 with torch and diffusers: pip install torch diffusers',
      );
      process.exit(3);
    }
    return JSON.parse(readFileSync(json, 'utf8')) as Record<string, number>;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Runs `npm run bench -- reference [--images N] [--threads 2]`. */
export async function main(): Promise<void> {
  const { values, record } = openBench('reference', {
    model: { type: 'string', default: 'weights/fashion-mnist', help: 'a model folder' },
    data: { type: 'string', default: DATA, help: 'a folder with the test split as IDX files' },
    images: { type: 'string', default: '40', help: 'images that PyTorch classifies' },
    ours: { type: 'string', default: '400', help: 'images that this library classifies' },
    threads: { type: 'string', default: '2', help: "PyTorch's threads" },
  });
  const common = ['--model', values.model, '--threads', values.threads, '--data', values.data];
  const evaluation = python(...common, '--evaluation-only');
  const staged = python(...common, '--images', values.images, '--n-samples', '50,500', '--to-keep', '5,1');
  record({ name: 'PyTorch', ...staged, msPerEvaluation: evaluation.msPerEvaluation });
  console.log(
    'PyTorch, staged elimination (50,500 levels, keep 5,1):',
    JSON.stringify({ ...staged, trials: undefined, labels: undefined }),
  );
  const ours = await measure(values.model, readTestSet(values.data, Number(values.ours)));
  record({ name: 'this library', ...ours });
  console.log(line('this library', ours));
  const theirs = evaluation.msPerEvaluation!;
  const speed = ours.imagesASecond / staged.imagesPerSecond!;
  console.log(
    `one evaluation: ${theirs.toFixed(2)} ms in PyTorch's fastest setting, ${ours.msAnEvaluation.toFixed(2)} ms here: ${(theirs / ours.msAnEvaluation).toFixed(2)} of its speed`,
  );
  console.log(
    `images per second: ${staged.imagesPerSecond!.toFixed(3)} in PyTorch, ${ours.imagesASecond.toFixed(2)} here: ${speed.toFixed(1)} times as many`,
  );
}
