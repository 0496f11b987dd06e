// Tests the command line as real processes: signals, closed pipes, sudden ends, memory.

import { type ChildProcessByStdio, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test, vi } from 'vitest';
import { goodImages, temporaryFolder, write } from './image-files.ts';

// Processes are slow on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PROGRAM = ['--import', 'tsx', join(ROOT, 'test/pipeline/fake-cli.ts')];

/** A delay longer than any test. */
const BLOCKED = 1_000_000;

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/** Starts the command with a fake model whose batches take `delay` milliseconds. */
const start = (delay: number, ...argv: readonly string[]): Child =>
  spawn(process.execPath, [...PROGRAM, String(delay), '--model', './fake', ...argv], {
    cwd: ROOT,
    stdio: 'pipe',
    env: { ...process.env, ...(delay === BLOCKED ? { TELL_BATCHES: '1' } : {}) },
  });

const textOf = async (stream: Readable) => {
  let text = '';
  for await (const chunk of stream) text += chunk;
  return text;
};

async function ended(child: Child) {
  const [out, err, [status, signal]] = await Promise.all([
    textOf(child.stdout),
    textOf(child.stderr),
    once(child, 'close'),
  ]);
  return { out, err, status, signal };
}

const pathsIn = (text: string): string[] =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line).path);

/** Waits until a process has done something; otherwise the test times out. */
const waitFor = async (condition: () => boolean) => {
  while (!condition()) await sleep(25);
};

const linesIn = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0);

describe('signals', () => {
  test('SIGINT finishes images in flight, with whole lines and status 130', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 200);
    const output = join(folder, 'out');
    const child = start(20, '--concurrency', '4', '--output', output, folder);
    const end = ended(child);
    await waitFor(() => linesIn(output) >= 3);
    child.kill('SIGINT');
    const { status, err } = await end;
    expect(status).toBe(130);
    expect(err).toContain('finishing the images in flight');
    const text = readFileSync(output, 'utf8');
    expect(text.endsWith('\n')).toBe(true);
    const paths = pathsIn(text);
    expect(paths.length).toBeLessThan(200);
    expect(new Set(paths).size).toBe(paths.length);
  });

  test('SIGINT ends a run that waits for standard input', async () => {
    const folder = temporaryFolder();
    const [path] = goodImages(folder, 1);
    const child = start(0, '-');
    child.stdin.write(`${path}\n`);
    await once(child.stdout, 'readable');
    child.kill('SIGINT');
    const { status, out } = await ended(child);
    expect(status).toBe(130);
    expect(pathsIn(out)).toEqual([path]);
  });

  test('a second SIGINT ends the run at once', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 3);
    const child = start(BLOCKED, folder);
    const end = ended(child);
    let err = '';
    child.stderr.on('data', (text) => {
      err += text;
    });
    await waitFor(() => err.includes('a batch begins'));
    child.kill('SIGINT');
    await waitFor(() => err.includes('once more'));
    child.kill('SIGINT');
    expect((await end).status).toBe(130);
  });
});

describe('sudden ends', () => {
  test('kill -9 and --resume give every image exactly once, without torn lines', async () => {
    const folder = temporaryFolder();
    const paths = goodImages(folder, 120);
    const output = join(folder, 'out');
    const argv = ['--concurrency', '4', '--output', output, '--resume', folder];
    for (const lines of [10, 50]) {
      const child = start(5, ...argv);
      const end = ended(child);
      await waitFor(() => linesIn(output) >= lines);
      child.kill('SIGKILL');
      expect((await end).signal).toBe('SIGKILL');
    }
    expect((await ended(start(0, ...argv))).status).toBe(0);
    expect(pathsIn(readFileSync(output, 'utf8')).sort()).toEqual(paths);
  });

  test('a closed pipe ends the run quietly', async ({ skip }) => {
    skip(process.platform === 'win32', 'Windows has no bash');
    const folder = temporaryFolder();
    goodImages(folder, 300);
    const command = `set -o pipefail; "$0" "$@" | head -n 1`;
    const argv = [process.execPath, ...PROGRAM, '5', '--model', './fake', folder];
    const child = spawn('bash', ['-c', command, ...argv], { cwd: ROOT, stdio: 'pipe' });
    const { out, err, status } = await ended(child);
    expect(out.split('\n')).toHaveLength(2);
    expect(err).toBe('');
    expect(status).toBe(0);
  });
});

/**
 * The command that runs a program so that permission bits apply. Root only gives up the privilege to ignore them:
 * another user could not even read the program where the checkout is below a folder of mode 700.
 */
const bound =
  process.getuid?.() === 0 ? ['setpriv', '--bounding-set=-dac_override,-dac_read_search'] : ['env'];

describe('unreadable files', () => {
  test('a file and a folder without permission are failures', async (context) => {
    const folder = temporaryFolder();
    const [first = ''] = goodImages(folder, 2);
    const locked = join(folder, 'locked');
    write(folder, { 'locked/a.png': '' });
    execFileSync('chmod', ['000', first, locked]);
    const [program = '', ...prefix] = bound;
    const canRead = (file: string) =>
      spawnSync(program, [...prefix, process.execPath, '-e', `fs.readFileSync(${JSON.stringify(file)})`]);
    if (canRead(PROGRAM.at(-1)!).status !== 0 || canRead(first).status === 0)
      context.skip('root cannot give up its privilege to read any file here (setpriv is missing or refused)');
    const argv = [...prefix, process.execPath, ...PROGRAM, '0', '--model', './fake', '-q', folder];
    const { out, status } = await ended(spawn(program, argv, { cwd: ROOT, stdio: 'pipe' }));
    execFileSync('chmod', ['700', locked]);
    expect(status).toBe(1);
    const lines = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toHaveLength(3);
    expect(lines.filter(({ error }) => error?.code === 'unreadable')).toHaveLength(2);
  });

  test('a folder that is removed during the run is a failure', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'z'));
    goodImages(folder, 100);
    goodImages(join(folder, 'z'), 5);
    const child = start(20, '--concurrency', '2', '-q', folder);
    await once(child.stdout, 'readable');
    rmSync(join(folder, 'z'), { recursive: true });
    const { out, status } = await ended(child);
    expect(status).toBe(1);
    const failures = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
      .filter(({ error }) => error);
    expect(failures).toMatchObject([{ path: join(folder, 'z'), error: { code: 'not-found' } }]);
  });
});

test('10,000 paths on standard input are classified in little memory', async () => {
  const folder = temporaryFolder();
  const files = goodImages(folder, 4);
  const child = start(0, '-q', '--timesteps', 'even:1', '--labels', 'ant,bee', '--top-k', '1', '-');
  let lines = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    for (const byte of chunk) if (byte === 10) lines++;
  });
  const feed = async () => {
    for (let i = 0; i < 10_000; i++)
      if (!child.stdin.write(`${files[i % 4]}\n`)) await once(child.stdin, 'drain');
    child.stdin.end();
  };
  const [[status]] = await Promise.all([once(child, 'close'), feed()]);
  expect([status, lines]).toEqual([0, 10_000]);
});
