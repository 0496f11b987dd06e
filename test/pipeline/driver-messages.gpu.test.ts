// Tests that standard error of the real command on a real device has only our own lines, whatever the driver prints.

import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { temporaryFolder } from './image-files.ts';

const ROOT = join(import.meta.dirname, '../..');
const PROGRAM = ['--import', 'tsx', join(ROOT, 'src/pipeline/command/cli.ts')];
const SAMPLE = join(ROOT, 'weights/fashion-mnist/samples/0000-ankle-boot.png');

/** Runs the command from the sources with standard error in a file, as after `2> file`. */
function command(argv: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const file = join(temporaryFolder(), 'stderr');
  const stderr = openSync(file, 'w');
  const { status, stdout } = spawnSync(process.execPath, [...PROGRAM, ...argv], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', stderr],
  });
  closeSync(stderr);
  return { status, out: stdout, err: readFileSync(file, 'utf8') };
}

describe('standard error', () => {
  test('is empty with -q, and the result names the device', () => {
    const { status, out, err } = command(['-q', '--format', 'jsonl', SAMPLE]);
    expect([status, err]).toEqual([0, '']);
    expect(JSON.parse(out)).toMatchObject({ label: 'Ankle boot', device: expect.stringMatching(/\w/) });
  });

  test('has only our own lines without -q', () => {
    const { status, err } = command(['--format', 'jsonl', SAMPLE]);
    expect(status).toBe(0);
    expect(err.trimEnd().split('\n')).toEqual(
      expect.arrayContaining([expect.stringMatching(/images? classified/)]),
    );
    expect(err.split('\n').filter((line) => line && !line.startsWith('diffclass-stream: '))).toEqual([]);
  });

  test('has one line that names doctor if there is no driver, with status 4', ({ skip }) => {
    skip(process.platform !== 'linux', 'only on Linux can a variable hide every driver');
    const nowhere = { VK_DRIVER_FILES: '/nonexistent', VK_ICD_FILENAMES: '/nonexistent' };
    const { status, out, err } = command([SAMPLE], nowhere);
    expect([status, out]).toEqual([4, '']);
    expect(err).toMatch(/^diffclass-stream: no WebGPU device was found: .*doctor --fix.*\n$/);
    expect(err.split('\n')).toHaveLength(2);
  });

  test('lists the devices if the chosen one does not exist, with status 4', () => {
    const { status, err } = command(['--device', 'no such card', SAMPLE]);
    expect(status).toBe(4);
    expect(err).toMatch(/^diffclass-stream: device: expected an index or a part of a name of 0 .*\n$/);
  });
});
