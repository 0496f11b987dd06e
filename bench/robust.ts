// How robust are the shipped models, with and without purification? Runs `evaluate` in its own process for every row of
// the table, and prints the results. Skips rows whose result exists in DIR; a row that was interrupted resumes.
//
//   npm run bench -- robust --out DIR [options]

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { openBench } from './run.ts';
import { DATA } from './test-set.ts';

const PROGRAM = fileURLToPath(new URL('../src/pipeline/command/cli.ts', import.meta.url));

const { values, record } = openBench('robust', {
  out: { type: 'string', help: 'the folder for the results of the rows' },
  rows: { type: 'string', default: '.', help: 'a regular expression for the names of the rows' },
  images: { type: 'string', default: '64', help: 'images that are attacked' },
  steps: { type: 'string', default: '20', help: 'steps of APGD' },
  queries: { type: 'string', default: '200', help: 'queries of Square' },
  cifar: {
    type: 'string',
    help: 'the binary test batch of CIFAR-10, gzipped or not; without it, no rows for CIFAR-10',
  },
  data: { type: 'string', default: DATA, help: 'a folder with the test split of Fashion-MNIST as IDX files' },
});
const fashion = join(values.data, 't10k-images-idx3-ubyte.gz');

/** Models with their test images and the size of the perturbation in each norm, for pixels in [0, 1]. */
const SUBJECTS = {
  'fashion-mnist': { set: fashion, linf: '0.1', l2: '0.5', options: ['--timesteps', 'even:8'], share: 2 },
  'fashion-mnist-multi-head': { set: fashion, linf: '0.1', l2: '0.5', options: [], share: 1 },
  'fashion-mnist-robust': { set: fashion, linf: '0.1', l2: '0.5', options: [], share: 1 },
  'cifar-10': { set: values.cifar, linf: '8/255', l2: '0.5', options: [], share: 1 },
} as const;

/** Purifications in front of the classifier, and the gradient that attacks use. Measures 1 / `share` of the images. */
const DEFENCES = {
  plain: { options: [], share: 1 },
  ...purified('lm-momentum', { identity: 2, full: 2, transfer: 2 }),
  ...purified('diffpure', { identity: 2, full: 8, transfer: 2 }, ['--purify-t-star', '100']),
};

function purified(method: string, gradients: Record<string, number>, options: readonly string[] = []) {
  return Object.fromEntries(
    Object.entries(gradients).map(([gradient, share]) => [
      `${method} ${gradient}`,
      { options: ['--purify', method, '--gradient', gradient, ...options], share },
    ]),
  );
}

const ATTACKS = { apgd: 'apgd-ce,apgd-dlr', square: 'square' } as const;

/** The parts of the report of `evaluate --format json` that are printed. */
const share = z.object({ count: z.number(), of: z.number(), interval: z.tuple([z.number(), z.number()]) });
const report = z.object({
  clean: share,
  attacks: z.array(z.object({ attack: z.string(), robust: share })),
  worst: share,
});

interface Row {
  readonly name: string;
  readonly command: readonly string[];
}

function rows(): Row[] {
  const all: Row[] = [];
  for (const [model, { set, options, share: each, ...eps }] of Object.entries(SUBJECTS))
    for (const norm of ['linf', 'l2'] as const)
      for (const [defence, { options: purifying, share }] of Object.entries(DEFENCES))
        for (const [kind, attacks] of Object.entries(ATTACKS)) {
          if (set === undefined || (kind === 'square' && defence !== 'plain')) continue;
          const ball = ['--norm', norm, '--eps', eps[norm]];
          const moved = defence.startsWith('lm') ? ['--purify-eps', eps.linf] : [];
          const images = Math.ceil(Number(values.images) / share / each);
          const steps = kind === 'square' ? values.queries : values.steps;
          const run = ['--attacks', attacks, '--steps', steps, '--images', String(images)];
          all.push({
            name: `${model}, ${defence}, ${norm}, ${kind}`,
            command: [set, '--model', model, ...options, ...ball, ...purifying, ...moved, ...run],
          });
        }
  return all.filter(({ name }) => new RegExp(values.rows).test(name));
}

const percent = ({ count, of, interval: [low, high] }: z.output<typeof share>): string =>
  `${((100 * count) / of).toFixed(1)} (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;

if (values.out === undefined) {
  console.error('bench robust: expected --out DIR, the folder for the results of the rows');
  process.exit(2);
}
mkdirSync(values.out, { recursive: true });
console.log(
  '| model, defence, norm | images | clean % (95 %) | attack | robust % (95 %) |\n|---|---|---|---|---|',
);
for (const { name, command } of rows()) {
  const file = join(values.out, `${name.replaceAll(/[ ,]+/g, '-')}.json`);
  if (!existsSync(file)) {
    const options = ['--format', 'json', '--quiet', '--output', file, '--resume'];
    const started = ['--import', 'tsx', PROGRAM, 'evaluate', ...command, ...options];
    const child = spawn(process.execPath, started, { stdio: ['ignore', 'inherit', 'inherit'] });
    const [status] = await once(child, 'exit');
    if (status !== 0)
      throw new Error(`bench robust: ${name}: expected evaluate to end with status 0, got ${status}`);
  }
  const { clean, attacks, worst } = report.parse(JSON.parse(readFileSync(file, 'utf8')));
  record({ name, clean, attacks, worst });
  for (const [attack, found] of [
    ...attacks.map(({ attack, robust }) => [attack, robust] as const),
    ['worst', worst] as const,
  ])
    console.log(`| ${name} | ${clean.of} | ${percent(clean)} | ${attack} | ${percent(found)} |`);
}
