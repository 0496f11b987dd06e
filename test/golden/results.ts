// Whole commands and the bytes that they write. `node --import tsx test/golden/results.ts PROGRAM` writes results.json next
// to this file with a program, such as the cli.js of an earlier version; test/golden-results.gpu.test.ts compares.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';

const ROOT = join(import.meta.dirname, '../..');
const GOLDEN = join(import.meta.dirname, 'results.json');

/** Commands by name. TMP holds a labelled set and a table of pairs, OUT is empty, SAMPLES are 40 images. */
export const COMMANDS = {
  'default model': 'SAMPLES --model weights/fashion-mnist-multi-head --order input',
  'pixel model': 'SAMPLES --model weights/fashion-mnist --order input',
  'robust model': 'SAMPLES --model weights/fashion-mnist-robust --order input',
  'EDM model': 'SAMPLES --model weights/cifar-10 --order input',
  all: 'SAMPLES/000*.png --model weights/fashion-mnist --strategy all --energy --order input --seed 7 --errors OUT/e.jsonl',
  staged:
    'SAMPLES/000*.png --model weights/fashion-mnist --strategy staged --n-samples 5,20 --to-keep 3,1 --loss l1 --order input',
  csv: 'SAMPLES/000*.png --model weights/cifar-10 --sigmas importance:0.02:80:12 --weighting rdc-code --strategy all --order input --format csv',
  preset: 'SAMPLES/000*.png --model weights/fashion-mnist --preset fast --budget 60 --order input',
  DiT: 'PIPELINES-dit/images --model PIPELINES-dit --strategy all --timesteps even:20 --order input',
  'SD 1':
    'PIPELINES-sd1/images --model PIPELINES-sd1 --prompts PIPELINES-sd1/prompts.csv --timesteps even:20 --strategy all --order input',
  'SD 2': 'PIPELINES-sd2/images --model PIPELINES-sd2 --labels cat,dog --timesteps even:20 --order input',
  'SD, v-prediction':
    'PIPELINES-v/images --model PIPELINES-v --labels cat,dog --template a-{} --timesteps even:20 --order input',
  'classify --purify':
    'SAMPLES/000*.png --model weights/fashion-mnist --purify lm-adam --purify-steps 2 --order input',
  'lm-adam':
    'purify SAMPLES/000*.png --model weights/cifar-10 --method lm-adam --steps 2 --out OUT --tensors OUT/images.safetensors',
  'lm-momentum':
    'purify SAMPLES/000*.png --model weights/fashion-mnist --method lm-momentum --norm l2 --eps 0.5 --out OUT --tensors OUT/images.safetensors',
  'lm-residual':
    'purify SAMPLES/000*.png --model weights/fashion-mnist --method lm-residual --sigmas 0.41,0.47,0.5,0.45,0.55 --out OUT',
  diffpure:
    'purify SAMPLES/000*.png --model weights/fashion-mnist --method diffpure --t-star 50 --steps 10 --out OUT',
  'apgd-t':
    'attack TMP/set --truth folders --model weights/fashion-mnist-multi-head --attack apgd-t --steps 5 --restarts 2 --eps 0.02 --out OUT',
  pgd: 'attack TMP/few --truth folders --model weights/fashion-mnist --attack pgd --steps 2 --levels-per-step 2 --eps 0.01 --out OUT',
  square:
    'attack TMP/few --truth folders --model weights/fashion-mnist-multi-head --attack square --steps 250 --norm l2 --eps 0.5 --out OUT',
  'attack through a purification':
    'attack TMP/few --truth folders --model weights/fashion-mnist-multi-head --attack apgd-dlr --steps 2 --purify lm-adam --gradient full --eot 2 --purify-steps 2 --levels-per-step 4 --eps 0.02 --out OUT',
  evaluate:
    'evaluate TMP/set --model weights/fashion-mnist-multi-head --eps 0.02 --attacks apgd-ce,apgd-t --steps 3 --images 6 --output OUT/lines.jsonl',
  calibrate: 'calibrate TMP/set --model weights/fashion-mnist-robust --held-out 0.4 --json --dry',
  info: 'info weights/cifar-10 --json',
  'info of SD 1': 'info PIPELINES-sd1 --json',
  'info of DiT': 'info PIPELINES-dit --json',
  optimal: 'optimal TMP/set OUT/model',
  match: 'match TMP/pairs.csv --model PIPELINES-sd1 --timesteps even:10',
} as const;

/** Where a sample belongs: the class of its name, by its number in the model. */
const CLASSES = 't-shirt-top trouser pullover dress coat sandal shirt sneaker bag ankle-boot'.split(' ');

/** Writes the labelled sets and the table of pairs that commands read, and returns their folder. */
export function prepareInputs(): string {
  const folder = mkdtempSync(join(tmpdir(), 'golden-results-'));
  const samples = join(ROOT, 'weights/fashion-mnist/samples');
  for (const [i, name] of readdirSync(samples).sort().entries()) {
    const label = String(CLASSES.indexOf(/^\d+-(.*)\.png$/.exec(name)![1]!));
    for (const set of i < 4 ? ['set', 'few'] : ['set']) {
      mkdirSync(join(folder, set, label), { recursive: true });
      copyFileSync(join(samples, name), join(folder, set, label, name));
    }
  }
  const images = join(ROOT, 'test/golden/pipeline-sd1/images');
  writeFileSync(
    join(folder, 'pairs.csv'),
    `item,image,caption\na,${images}/0.png,a cat\na,${images}/1.png,a dog\n`,
  );
  return folder;
}

/** Runs a program, compiled or not, in the repository. */
function execute(program: string, args: readonly string[]) {
  const loader = program.endsWith('.ts') ? ['--import', 'tsx'] : [];
  return promisify(execFile)(process.execPath, [...loader, program, ...args], {
    cwd: ROOT,
    maxBuffer: 2 ** 28,
  });
}

/** What a command left behind: its exit status, and the hash of its standard output and of each file. */
export interface Outcome {
  readonly status: number;
  readonly outputs: Readonly<Record<string, string>>;
}

/** Runs a command in the repository; the program's version, dates and folders are left out of what is compared. */
export async function run(program: string, command: string, inputs: string): Promise<Outcome> {
  const out = mkdtempSync(join(inputs, 'out-'));
  const args = command.split(' ').map((arg) =>
    arg
      .replace(/^TMP/, inputs)
      .replace(/^OUT/, out)
      .replace(/^SAMPLES/, 'weights/fashion-mnist/samples')
      .replace(/^PIPELINES/, 'test/golden/pipeline'),
  );
  const { stdout, status } = await execute(program, args).then(
    ({ stdout }) => ({ stdout, status: 0 }),
    (error: { readonly stdout: string; readonly code: number }) => ({
      stdout: error.stdout,
      status: error.code,
    }),
  );
  const hash = (bytes: string | Uint8Array) => createHash('sha256').update(bytes).digest('hex').slice(0, 16);
  const common = (text: string) =>
    text
      .replaceAll(out, 'OUT')
      .replaceAll(inputs, 'TMP')
      .replaceAll(ROOT, 'ROOT')
      .replace(/"version":\s*"[^"]*"/g, '"version"')
      .replace(/"date":\s*"[^"]*"/g, '"date"');
  const outputs: Record<string, string> = { stdout: hash(common(stdout)) };
  for (const entry of readdirSync(out, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const isText = /\.(jsonl?|csv)$/.test(path);
    // Images are attacked at the same time, so the lines of a log have no fixed order.
    const ordered = (text: string) =>
      path.endsWith('.log.jsonl') ? text.split('\n').sort().join('\n') : text;
    outputs[relative(out, path)] = hash(
      isText ? ordered(common(readFileSync(path, 'utf8'))) : readFileSync(path),
    );
  }
  return { status, outputs: Object.fromEntries(Object.entries(outputs).sort()) };
}

export interface Golden {
  /** The version of the program that made the file, and the device. */
  readonly version: string;
  readonly device: string;
  readonly results: Readonly<Record<string, Outcome>>;
}

/** Returns the device that commands run on here. */
export async function deviceHere(program: string): Promise<string> {
  const args = ['weights/fashion-mnist/samples/0000-ankle-boot.png', '--format', 'jsonl'];
  const { stdout } = await execute(program, args);
  return JSON.parse(stdout).device;
}

export const golden = (): Golden => JSON.parse(readFileSync(GOLDEN, 'utf8'));

async function make(program: string): Promise<void> {
  const inputs = prepareInputs();
  const { stdout } = await execute(program, ['--version']);
  const results: Record<string, Outcome> = {};
  for (const [name, command] of Object.entries(COMMANDS)) results[name] = await run(program, command, inputs);
  rmSync(inputs, { recursive: true });
  const made: Golden = { version: stdout.trim(), device: await deviceHere(program), results };
  writeFileSync(GOLDEN, `${JSON.stringify(made, null, 1)}\n`);
}

if (process.argv[1] === import.meta.filename) await make(process.argv[2]!);
