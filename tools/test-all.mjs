// `npm run test:all`: the suite, and the trials that take too long for it. Prints one line per group with its counts and
// the command that runs it alone. `npm run test:all -- GROUP...` runs some of them.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ROOT } from './install.mjs';

const vitest = (...files) => ['npx', 'vitest', 'run', ...files];

/** The groups in their order: what each one tries, its command, and the variables that ask for its long trials. */
const GROUPS = {
  suite: { command: ['npm', 'test'] },
  // Whole commands, byte for byte, against an earlier version.
  results: { command: vitest('test/golden-results.gpu.test.ts'), env: { LONG_TRIALS: '1' } },
  // Parsers of hostile files, the promises of the deciding rules, and how long --dry-run says that a run takes.
  properties: { command: vitest('test/properties'), env: { LONG_TRIALS: '1' } },
  forecasts: { command: vitest('test/pipeline/dry-run.gpu.test.ts'), env: { LONG_TRIALS: '1' } },
  // Many users of one classifier, some of whom abort: at other moments with every seed.
  chaos: {
    command: vitest('test/pipeline/classifier.test.ts'),
    env: { CHAOS_SEED: '1' },
    repeat: 20,
  },
  // Every attack against APGD in PyTorch, and the deciding rules on many more images.
  attacks: { command: vitest('test/pipeline/attacking/apgd.test.ts'), env: { ALL_CASES: '1' } },
  sigmas: { command: vitest('test/pipeline/sigmas.test.ts'), env: { TRIAL_IMAGES: '1000' } },
  // Labels of 2,000 images in f16 and in f32, by every shipped model.
  precision: {
    command: vitest('test/precision-labels.gpu.test.ts'),
    env: { PRECISION_IMAGES: '2000' },
  },
  // The kit of `npm run bench -- device --pack` in a root with nothing but glibc and a shell.
  kit: { command: vitest('test/package/kit.test.ts'), env: { TEST_KIT: '1' } },
  // Test images of Pillow, sharp and PngSuite against Pillow, where IMAGE_CORPUS names them (docs/images.md).
  images: { command: vitest('test/image-corpus.test.ts') },
  // Small changes of the source that the tests must notice.
  mutation: { command: ['npm', 'run', 'mutate'] },
};

const TALLY = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/;

/** Runs a command with its output on standard error; returns the counts of its last line. */
function run([program, ...args], env) {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 2],
      shell: process.platform === 'win32',
    });
    let tally;
    createInterface({ input: child.stdout }).on('line', (line) => {
      process.stderr.write(`${line}\n`);
      tally =
        TALLY.exec(line)
          ?.slice(1)
          .map((count) => Number(count ?? 0)) ?? tally;
    });
    child.on('error', () => resolve([0, 1, 0]));
    child.on('close', (status) => {
      const [passed, failed, skipped] = tally ?? [0, 0, 0];
      // A group that ends badly without a failed test has failed as a whole.
      resolve([passed, status !== 0 && failed === 0 ? 1 : failed, skipped]);
    });
  });
}

/** Gives every repetition of a group its own seed. */
const seeded = (env, k) => (env.CHAOS_SEED ? { ...env, CHAOS_SEED: String(k + 1) } : env);

const chosen = process.argv.slice(2);
const unknown = chosen.find((name) => !(name in GROUPS));
if (unknown) {
  process.stderr.write(`expected a group of ${Object.keys(GROUPS).join(', ')}, got ${unknown}\n`);
  process.exit(2);
}

const rows = [];
for (const [name, { command, env = {}, repeat = 1 }] of Object.entries(GROUPS)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  process.stderr.write(`\n=== ${name}\n`);
  const sums = [0, 0, 0];
  for (let k = 0; k < repeat; k++)
    for (const [i, count] of (await run(command, seeded(env, k))).entries()) sums[i] += count;
  const variables = Object.entries(env).map(([key, value]) => `${key}=${value} `);
  rows.push({ name, sums, alone: `${variables.join('')}${command.join(' ')}` });
}

const total = [0, 0, 0];
process.stdout.write('\n');
for (const { name, sums, alone } of rows) {
  for (const [i, count] of sums.entries()) total[i] += count;
  const [passed, failed, skipped] = sums;
  process.stdout.write(
    `${name.padEnd(10)}  ${passed} passed, ${failed} failed, ${skipped} skipped   ${alone}\n`,
  );
}
const [passed, failed, skipped] = total;
process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`);
process.exitCode = failed > 0 ? 1 : 0;
