// Runs `bench/main.ts` as `npm run bench` does: its list, the help of benchmarks, and wrong names and options.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { runIn } from '../package/consumer.ts';

const ROOT = join(import.meta.dirname, '../..');

const bench = (...argv: readonly string[]) =>
  runIn(ROOT, process.execPath, ['--import', 'tsx', 'bench/main.ts', ...argv]);

it.each(['--help', '--list'])('%s lists all benchmarks with their questions', async (flag) => {
  const { status, out } = await bench(flag);
  expect(status).toBe(0);
  expect(out).toMatch(/\n {2}kernels +How fast is every kernel/);
  expect(out).toMatch(/\n {2}peers +/);
  expect(out.trim().split('\n').length).toBeGreaterThan(18);
});

it('an unknown benchmark is an error that names the valid ones', async () => {
  const { status, err } = await bench('kernel');
  expect(status).toBe(2);
  expect(err).toMatch(/^bench: expected one of kernels, compare, unet, .*, got "kernel"\n$/);
});

it('--help after a name lists the options of a benchmark, with what they are without being given', async () => {
  const { status, out } = await bench('gradient', '--help');
  expect(status).toBe(0);
  expect(out).toMatch(/^npm run bench -- gradient \[options\]\n/);
  expect(out).toMatch(/\n {2}--batch <value> +evaluations per batch \(32\)\n/);
  expect(out).toMatch(/\n {2}--json <value> +also write the results/);
});

it.each([
  ['backward', '--families', 'tile'],
  ['backward', '--family', 'fast'],
  ['backward', '--match', 'no such case'],
  ['stopping', '--levels'],
])('%s %s is refused with status 2', async (...argv) => {
  const { status, out, err } = await bench(...argv);
  expect([status, out]).toEqual([2, '']);
  expect(err).toMatch(/^bench/);
});

it('a benchmark writes its results as JSON', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'diffclass-bench-'));
  const json = join(folder, 'report.json');
  const { status, out } = await bench('operator-memory', '--images', '2000', '--json', json);
  const report = JSON.parse(readFileSync(json, 'utf8'));
  rmSync(folder, { recursive: true });
  expect(status).toBe(0);
  expect(out).toContain('2000 images: ');
  expect(report).toMatchObject({
    bench: 'operator-memory',
    node: process.version,
    options: { images: '2000' },
    results: [{ images: 2000 }],
  });
});
