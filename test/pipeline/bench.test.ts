// Tests the command line of `bench`: what it refuses, its lists, its comparison of reports, and what a closed pipe leaves.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import { benchCases, OP_NAMES } from '../../src/bench/cases.ts';
import { titleOf } from '../../src/bench/time-case.ts';
import { FAMILIES } from '../../src/kernels/device/families.ts';
import { main } from '../../src/pipeline/command/main.ts';
import { beginReport } from '../../src/pipeline/command/subcommands/bench/progress-report.ts';
import { fakeDescribe, fakeFolder } from './fake-folder.ts';

const folder = mkdtempSync(join(tmpdir(), 'diffclass-bench-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs `bench` in this process. Nothing here needs a device. */
async function bench(...argv: readonly string[]) {
  const stdout = new PassThrough();
  stdout.setEncoding('utf8');
  let out = '';
  stdout.on('data', (text: string) => {
    out += text;
  });
  const errors: string[] = [];
  const status = await main(['bench', ...argv], {
    ...{ openModel: fakeFolder(), describe: fakeDescribe(), stdout },
    stderr: { write: (message) => errors.push(message) },
  });
  return { status, out, err: errors.join('') };
}

const refused = async (...argv: readonly string[]) => {
  const { status, out, err } = await bench(...argv);
  expect([status, out]).toEqual([2, '']);
  return err.trimEnd();
};

describe('bench refuses', () => {
  it('an unknown op or family, naming the valid ones', async () => {
    const op = await refused('--op', 'convolution');
    expect(op).toMatch(/^diffclass-stream: --op: expected names of .*, got "convolution"$/);
    for (const name of OP_NAMES) expect(op).toContain(name);
    expect(await refused('--op', 'linear,convolution')).toContain('got "linear,convolution"');
    expect(await refused('--family', 'fast')).toBe(
      `diffclass-stream: --family: expected names of ${FAMILIES.join(', ')}, separated by commas, got "fast"`,
    );
  });

  it('an unknown benchmark', async () => {
    expect(await refused('kernel')).toBe(
      'diffclass-stream: bench: expected kernels, unet, compare, got "kernel"',
    );
  });

  it('options that belong to another benchmark', async () => {
    expect(await refused('--batch', '4')).toBe(
      'diffclass-stream: --batch: belongs to bench unet, not to bench kernels',
    );
    expect(await refused('compare', 'a', 'b', '--op', 'linear')).toContain('--op: belongs to bench kernels');
    expect(await refused('unet', '--fail-on', 'slower')).toContain('--fail-on: belongs to bench compare');
  });

  it('a shape without one op, options without a shape, and options that the op does not use', async () => {
    expect(await refused('--shape', '8x3x4x4')).toContain('--shape: expected exactly one --op as well');
    expect(await refused('--op', 'add,linear', '--shape', '8x3x4x4')).toContain('exactly one --op');
    expect(await refused('--op', 'add', '--kernel', '3')).toContain('--kernel: belongs to --shape');
    expect(await refused('--op', 'groupNorm', '--shape', '8x3', '--kernel', '3')).toBe(
      'diffclass-stream: --kernel: groupNorm does not use it; it uses --groups',
    );
    expect(await refused('--op', 'add', '--shape', '8x3', '--kernel', '3')).toContain(
      'add does not use it; it uses --shape alone',
    );
  });

  it('shapes that are none, or that the op does not accept', async () => {
    for (const shape of ['8', '8x', '0x3', '8x3x4x4x5', '8*3'])
      expect(await refused('--op', 'add', '--shape', shape)).toContain(`got "${shape}"`);
    expect(await refused('--op', 'attention', '--shape', '2x10x4', '--heads', '3')).toContain(
      '--shape: attention: expected a multiple of 3 channels',
    );
  });

  it('a text that no case contains', async () => {
    expect(await refused('--match', '5x5')).toBe(
      'diffclass-stream: --match: expected a part of a line that --list prints, got "5x5"',
    );
  });
});

describe('bench --list', () => {
  it('lists all cases, or those that are chosen', async () => {
    const { status, out } = await bench('--list');
    expect(status).toBe(0);
    expect(out.trim().split('\n')).toEqual(benchCases().map(titleOf));
    const { out: some } = await bench('--list', '--op', 'conv2d,add', '--match', 'n=64');
    expect(some.trim().split('\n').length).toBe(22);
    expect(some).not.toContain('add');
  });

  it('reads a shape as PyTorch writes it: samples, channels, height, width', async () => {
    const line = async (...argv: readonly string[]) => (await bench('--list', ...argv)).out.trim();
    const given = ['--op', 'conv2d', '--shape', '8x128x32x16', '--channels', '256', '--kernel', '1x3'];
    expect(await line(...given)).toBe('conv2d 128->256 32x16 n=8 1x3');
    expect(await line('--op', 'linear', '--shape', '512x64')).toBe('linear 64->64 [64,512,1,1]');
    expect(await line('--op', 'attention', '--shape', '2x320x1024', '--heads', '8', '--keys', '77')).toBe(
      'attention 8x40 heads, n=2, 1024 queries of 77 keys',
    );
    expect(await line('--op', 'linear', '--shape', '2x8', '--weights', 'f16', '--residual')).toBe(
      'linear 8->8 [8,2,1,1], residual, f16',
    );
  });
});

it('bench --help describes the benchmarks, their options and their exit status', async () => {
  const { status, out } = await bench('--help');
  expect(status).toBe(0);
  for (const text of [
    '--op <names>',
    '--shape <NxCxHxW>',
    '--fail-on <what>',
    'bench compare OLD.json NEW.json',
  ])
    expect(out).toContain(text);
});

describe('bench compare', () => {
  const file = (name: string, content: unknown) => {
    const path = join(folder, name);
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
    return path;
  };
  const nine = (start: number) => Array.from({ length: 9 }, (_, i) => start + i / 100);
  const report = (factor: number, device = 'a GPU') => ({
    bench: 'kernels',
    device,
    families: ['tile'],
    results: [
      { name: 'linear 8->8', family: 'tile', samples: nine(10) },
      { name: 'add [1,2,3,4]', family: 'tile', samples: nine(2 * factor) },
    ],
  });
  const before = file('before.json', report(1));
  const slower = file('slower.json', report(1.5));

  it('prints the significant differences and the test', async () => {
    const { status, out } = await bench('compare', before, slower);
    expect(status).toBe(0);
    expect(out).toMatch(/add \[1,2,3,4\] +2\.040 +3\.040 +\+49\.0% +\S+ +slower\n/);
    expect(out).not.toMatch(/linear/);
    expect(out).toContain('2 results compared: 1 slower, 0 faster, 1 without a significant difference');
    expect(out).toContain("Mann-Whitney's test");
  });

  it('fails on what --fail-on names', async () => {
    expect((await bench('compare', before, slower, '--fail-on', 'slower')).status).toBe(1);
    expect((await bench('compare', slower, before, '--fail-on', 'slower')).status).toBe(0);
    expect((await bench('compare', slower, before, '--fail-on', 'different')).status).toBe(1);
    expect((await bench('compare', before, before, '--fail-on', 'different')).status).toBe(0);
    const large = ['--fail-on', 'slower', '--effect', '60'];
    expect((await bench('compare', before, slower, ...large)).status).toBe(0);
  });

  it('writes the comparison as JSON', async () => {
    const json = join(folder, 'comparison.json');
    await bench('compare', before, slower, '--json', json);
    const { differences } = JSON.parse(readFileSync(json, 'utf8'));
    expect(differences.map(({ verdict }: { verdict: string }) => verdict)).toEqual(['same', 'slower']);
  });

  it('warns about reports of different devices', async () => {
    const other = file('other.json', report(1, 'another GPU'));
    const { status, err } = await bench('compare', before, other);
    expect(status).toBe(0);
    expect(err).toContain('the reports are of different devices: a GPU; another GPU');
  });

  it('refuses what are no two reports of one benchmark', async () => {
    expect(await refused('compare', before)).toContain(
      'expected two reports, the old and the new one, got 1',
    );
    expect(await refused('compare', before, join(folder, 'missing.json'))).toContain(
      'missing.json: cannot be read (ENOENT)',
    );
    expect(await refused('compare', before, file('text.json', 'no JSON'))).toContain('expected JSON');
    expect(await refused('compare', before, file('list.json', [1]))).toContain('expected a report');
    const unet = file('unet.json', { ...report(1), bench: 'unet' });
    expect(await refused('compare', before, unet)).toContain('one of kernels and one of unet');
  });
});

describe('a report that grows', () => {
  const head = { bench: 'kernels', device: 'a GPU', families: ['tile'], repetitions: 1 };

  /** A reader that closes the pipe after the first write. */
  const closingPipe = () => {
    let writes = 0;
    return new Writable({
      write(_, __, done) {
        writes++;
        done(writes > 1 ? Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }) : null);
      },
    });
  };

  it('is a whole JSON file after each result', async () => {
    const json = join(folder, 'new', 'report.json');
    const report = beginReport({ stdout: new PassThrough() }, json, head);
    const read = () => JSON.parse(readFileSync(json, 'utf8'));
    expect(read()).toMatchObject({ ...head, results: [] });
    await report.add([{ name: 'a', ms: 1 }], 'a\n');
    expect(read().results).toEqual([{ name: 'a', ms: 1 }]);
    await report.add([{ name: 'b', ms: 2 }], 'b\n');
    expect(read().results).toHaveLength(2);
    expect(existsSync(`${json}.part`)).toBe(false);
  });

  it('loses nothing when the pipe closes, and is worth continuing only with a file', async () => {
    const json = join(folder, 'closed.json');
    for (const path of [json, undefined]) {
      const report = beginReport({ stdout: closingPipe() }, path, head);
      for (const name of ['a', 'b', 'c']) await report.add([{ name }], `${name}\n`);
      expect(report.unread).toBe(path === undefined);
    }
    expect(JSON.parse(readFileSync(json, 'utf8')).results).toHaveLength(3);
  });

  it('is refused before anything is measured if it cannot be written', () => {
    writeFileSync(join(folder, 'file'), '');
    expect(() => beginReport({ stdout: new PassThrough() }, join(folder, 'file', 'x.json'), head)).toThrow(
      'x.json: cannot be written',
    );
  });
});
