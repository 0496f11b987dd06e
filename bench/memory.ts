// Does memory stay flat, however many paths the command reads? Pipes paths (links to a few images) into the real command,
// with a tiny model and one noise level, and samples its resident memory.
//
//   npm run bench -- memory [options]

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encodePng } from '../src/pipeline/node/png.ts';
import { residentMiB } from './resident.ts';
import { openBench } from './run.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** The number of image files, and of links to them. */
const FILES = 8;
const LINKS = 1000;

/** The share of the paths that is not measured. */
const WARM_UP = 0.1;

const { values, record } = openBench('memory', {
  paths: { type: 'string', default: '100000', help: 'paths that the command reads' },
  labels: { type: 'string', help: 'candidates: A,B,...' },
  fake: { type: 'boolean', default: false, help: 'measure the pipeline alone, with a fake model' },
  model: { type: 'string', default: join(ROOT, 'test/golden/errors-epsilon'), help: 'a model folder' },
});
const count = Number(values.paths);

function makeLinks(folder: string): string[] {
  for (let i = 0; i < FILES; i++) {
    const data = Uint8Array.from({ length: 256 }, (_, p) => (p * (i + 3)) % 256);
    writeFileSync(join(folder, `file${i}.png`), encodePng({ width: 16, height: 16, channels: 1, data }));
  }
  return Array.from({ length: LINKS }, (_, i) => {
    const link = join(folder, `link${i}.png`);
    symlinkSync(`file${i % FILES}.png`, link);
    return link;
  });
}

const folder = mkdtempSync(join(tmpdir(), 'diffclass-memory-'));
try {
  const links = makeLinks(folder);
  const program = values.fake
    ? ['--import', 'tsx', join(ROOT, 'test/pipeline/fake-cli.ts'), '0']
    : [join(ROOT, 'dist/pipeline/command/cli.js')];
  const options = ['--model', values.model, '--timesteps', 'even:1', '--quiet', '--top-k', '1', '-'];
  if (values.labels !== undefined) options.unshift('--labels', values.labels);
  const began = performance.now();
  const child = spawn(process.execPath, [...program, ...options], {
    cwd: ROOT,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let lines = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) lines++;
  });
  const samples: { readonly lines: number; readonly resident: number }[] = [];
  const watch = setInterval(() => {
    const resident = residentMiB('VmRSS', child.pid ?? 0);
    if (!Number.isNaN(resident)) samples.push({ lines, resident });
  }, 250);
  const closed = once(child, 'close');
  for (let i = 0; i < count; i++)
    if (!child.stdin.write(`${links[i % LINKS]}\n`)) await once(child.stdin, 'drain');
  child.stdin.end();
  const [status] = await closed;
  clearInterval(watch);
  const warm = samples.filter((sample) => sample.lines >= count * WARM_UP).map(({ resident }) => resident);
  const seconds = (performance.now() - began) / 1000;
  const report = {
    bench: 'memory',
    model: values.fake ? 'fake' : basename(values.model),
    paths: count,
    lines,
    status,
    seconds: Math.round(seconds),
    imagesPerSecond: Math.round(lines / seconds),
    residentAfterWarmUpMiB: Math.round(warm[0] ?? Number.NaN),
    residentLeastMiB: Math.round(Math.min(...warm)),
    residentMostMiB: Math.round(Math.max(...warm)),
    residentEndMiB: Math.round(warm.at(-1) ?? Number.NaN),
  };
  record(report);
  console.log(JSON.stringify(report));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
