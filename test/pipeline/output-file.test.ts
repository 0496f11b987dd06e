// Tests that output files are locked, and are never one of the inputs.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join, relative } from 'node:path';
import { describe, expect, test } from 'vitest';
import { claimFile } from '../../src/pipeline/command/shared/output-file.ts';
import { lockFile } from '../../src/pipeline/command/shared/output-lock.ts';
import { cli, linesOf } from './captured-cli.ts';
import { goodImages, greyPng, temporaryFolder, write } from './image-files.ts';

describe('an output is never an input', () => {
  const refused = async (argv: readonly string[], image: string, stdin = '') => {
    const before = readFileSync(image);
    const { status, out, err } = await cli(argv, undefined, stdin);
    expect([status, out]).toEqual([2, '']);
    expect(err).toMatch(/^diffclass-stream: --(output|errors): [^\n]+\n$/);
    expect(readFileSync(image).equals(before)).toBe(true);
  };

  test.each(['--output', '--errors'])(
    '%s: the same path, links, another path, in a folder, by a pattern, by a list',
    async (option) => {
      const folder = temporaryFolder();
      const [image = ''] = goodImages(folder, 2);
      symlinkSync(image, join(folder, 'soft.jsonl'));
      linkSync(image, join(folder, 'hard.jsonl'));
      for (const output of [
        image,
        join(folder, '..', relative(join(folder, '..'), folder), '0000.png'),
        join(folder, 'soft.jsonl'),
        join(folder, 'hard.jsonl'),
      ]) {
        await refused([image, option, output], image);
        await refused([folder, option, output], image);
        await refused([join(folder, '*.png'), option, output], image);
        await refused(['-', option, output], image, `${image}\n`);
      }
      expect(readdirSync(folder).sort()).toEqual(['0000.png', '0001.png', 'hard.jsonl', 'soft.jsonl']);
    },
  );

  test('also a new output with the name of an image in an input folder', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 1);
    const { status, err } = await cli([folder, '--output', join(folder, 'x.png')]);
    expect(status).toBe(2);
    expect(err).toContain('is also the input');
  });

  test('also an input that is not an image', async () => {
    const folder = temporaryFolder();
    write(folder, { 'list.txt': 'precious\n' });
    const { status, err } = await cli([join(folder, 'list.txt'), '--output', join(folder, 'list.txt')]);
    expect(status).toBe(2);
    expect(err).toContain('is also the input');
    expect(readFileSync(join(folder, 'list.txt'), 'utf8')).toBe('precious\n');
  });
});

describe('an output that cannot be written is found before the model is opened', () => {
  const folder = () => {
    const made = temporaryFolder();
    write(made, { 'a.png': greyPng(1), 'weights.bin': Buffer.from([0, 1, 2]), 'photos/b.png': greyPng(2) });
    return made;
  };
  test.each([
    ['none/r.jsonl', 'its folder does not exist (ENOENT)'],
    ['a.png/r.jsonl', 'its folder is a file (ENOTDIR)'],
    ['photos', 'is a folder; expected a file'],
    ['weights.bin', 'is not a text file, so it holds no earlier results'],
    ['photos/b.png', 'is an image, by its name'],
  ])('%s: %s', async (name, reason) => {
    const root = folder();
    let opened = false;
    const open = async () => {
      opened = true;
      throw new Error('opened');
    };
    for (const option of ['--output', '--errors']) {
      const { status, err } = await cli([join(root, 'a.png'), option, join(root, name)], open);
      expect(err).toContain(`${option}: `);
      expect(err).toContain(reason);
      expect([status, opened]).toEqual([2, false]);
    }
  });

  test('a device is not checked', async () => {
    const root = folder();
    const { status } = await cli([join(root, 'a.png'), '-q', '--output', '/dev/null']);
    expect(status).toBe(0);
    expect(existsSync('/dev/null.run.json')).toBe(false);
  });
});

describe('locks', () => {
  test('the second of two programs with one output names the first one, and changes nothing', async () => {
    const folder = temporaryFolder();
    const [image = ''] = goodImages(folder, 1);
    const output = join(folder, 'r.jsonl');
    write(folder, { 'r.jsonl': '{"path":"x"}\n', 'link.jsonl': `->${output}` });
    const claimed = await claimFile(output, { option: '--output', inputs: [] });
    for (const name of [output, join(folder, 'link.jsonl')]) {
      const { status, err } = await cli([image, '--output', name]);
      expect(status).toBe(2);
      expect(err).toMatch(
        /^diffclass-stream: [^\n]*another program is writing to it \(process \d+ on [^\n]+\n$/,
      );
    }
    expect(readFileSync(output, 'utf8')).toBe('{"path":"x"}\n');
    await claimed.release();
    expect((await cli([image, '-q', '--output', output])).status).toBe(0);
    expect(readdirSync(folder).filter((name) => name.includes('lock'))).toEqual([]);
  });

  test('two outputs of one run must be two files', async () => {
    const folder = temporaryFolder();
    const [image = ''] = goodImages(folder, 1);
    const output = join(folder, 'r.jsonl');
    write(folder, { 'link.jsonl': `->${output}` });
    const { status, err } = await cli([image, '--output', output, '--errors', join(folder, 'link.jsonl')]);
    expect([status, err]).toEqual([
      2,
      'diffclass-stream: --errors and --output name the same file; expected two files\n',
    ]);
  });

  test('one of many simultaneous programs gets the lock', async () => {
    const file = join(temporaryFolder(), 'r');
    for (let round = 0; round < 60; round++) {
      if (round % 3)
        writeFileSync(`${file}.lock`, JSON.stringify({ pid: process.pid, host: 'x', token: 'y' }));
      if (round % 3) utimesSync(`${file}.lock`, new Date(0), new Date(0));
      const actual = await Promise.allSettled(Array.from({ length: 8 }, () => lockFile(file)));
      const locks = actual.filter((one) => one.status === 'fulfilled');
      expect(locks).toHaveLength(1);
      await locks[0]!.value.release();
    }
  });

  test('a lock of a killed process is ignored', async ({ skip }) => {
    skip(process.platform === 'win32', 'never tried on Windows');
    const folder = temporaryFolder();
    const file = join(folder, 'r');
    const program = `
      const { lockFile } = await import(${JSON.stringify(new URL('../../src/pipeline/command/shared/output-lock.ts', import.meta.url).href)});
      await lockFile(${JSON.stringify(file)});
      console.log('held');
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    await expect(lockFile(file)).rejects.toThrow(
      `another program is writing to it (process ${child.pid} on ${hostname()})`,
    );
    child.kill('SIGKILL');
    await once(child, 'exit');
    await (await lockFile(file)).release();
  }, 60_000);

  test('a lock of another machine is respected for a minute', async () => {
    const file = join(temporaryFolder(), 'r');
    const other = JSON.stringify({ pid: 1, host: 'elsewhere', token: 't' });
    writeFileSync(`${file}.lock`, other);
    await expect(lockFile(file)).rejects.toThrow('another program is writing to it (process 1 on elsewhere)');
    expect(readFileSync(`${file}.lock`, 'utf8')).toBe(other);
    const old = new Date(Date.now() - 61_000);
    utimesSync(`${file}.lock`, old, old);
    await (await lockFile(file)).release();
    expect(existsSync(`${file}.lock`)).toBe(false);
  });

  test('a lock is ignored if its process number was reused, or if it is damaged', async () => {
    const file = join(temporaryFolder(), 'r');
    const lock = await lockFile(file);
    const own = JSON.parse(readFileSync(`${file}.lock`, 'utf8'));
    await lock.release();
    writeFileSync(`${file}.lock`, JSON.stringify({ ...own, token: 'of an earlier process' }));
    await (await lockFile(file)).release();
    writeFileSync(`${file}.lock`, '{"pid":');
    await expect(lockFile(file)).rejects.toThrow('another program is writing to it;');
    utimesSync(`${file}.lock`, new Date(0), new Date(0));
    await (await lockFile(file)).release();
  });
});

test('the first ten failed items are printed on standard error if results go to a file', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  write(folder, Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`bad${i}.png`, 'hello'])));
  const output = join(folder, 'r.jsonl');
  const { status, out, err } = await cli([folder, '--output', output]);
  expect([status, out]).toEqual([1, '']);
  expect(err.match(/bad\d+\.png: its first bytes/g)).toHaveLength(10);
  expect(err).toContain('more items failed; the output holds all of them');
  expect(linesOf(readFileSync(output, 'utf8'))).toHaveLength(13);
});
