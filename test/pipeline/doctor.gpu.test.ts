// Tests the doctor on this machine: with its devices, and with an invalid model.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');
const PROGRAM = ['--import', 'tsx', join(ROOT, 'src/pipeline/command/cli.ts'), 'doctor', '--format', 'json'];

function doctor(argv: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...PROGRAM, ...argv], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  return { status, err: stderr, report: JSON.parse(stdout) };
}

describe('doctor --format json', () => {
  test('--run: lists devices, finds no problems, and classifies an image', () => {
    const { status, err, report } = doctor(['--run']);
    expect([status, err]).toEqual([0, '']);
    expect(report.devices[0]).toMatchObject({
      index: 0,
      name: expect.any(String),
      capabilities: { family: expect.any(String), maxBindingBytes: expect.any(Number) },
    });
    expect(report.checks.at(-1)).toMatchObject({
      name: 'run',
      status: 'ok',
      message: expect.stringContaining('a sample image is Ankle boot'),
    });
  });

  test('a folder that is not a model: exits with 3 and classifies nothing', () => {
    const { status, report } = doctor(['--model', join(ROOT, 'test')]);
    expect(status).toBe(3);
    expect(report.checks.at(-1)).toMatchObject({ name: 'model', status: 'problem' });
  });
});
