// The doctor on this machine: with its devices, without any, and with a model that is not in order.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');
const PROGRAM = ['--import', 'tsx', join(ROOT, 'src/pipeline/command/cli.ts'), 'doctor', '--format', 'json'];

function doctor(argv: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...PROGRAM, ...argv], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { status, err: stderr, report: JSON.parse(stdout) };
}

describe('doctor --format json', () => {
  test('--run: devices, all is well, and a real classification', () => {
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

  test.runIf(process.platform === 'linux')(
    'a driver that is not there: status 4, and --fix leaves it alone',
    () => {
      const nowhere = { VK_DRIVER_FILES: '/nonexistent' };
      const { status, err, report } = doctor(['--fix'], nowhere);
      expect([status, err, report.devices, report.fixed]).toEqual([4, '', [], []]);
      expect(report.checks).toContainEqual({
        name: 'device',
        status: 'problem',
        message: 'no WebGPU device: VK_DRIVER_FILES names /nonexistent, which does not exist',
        help: 'unset VK_DRIVER_FILES, or name files that exist',
      });
    },
  );

  test('a folder that is no model: status 3, and nothing is classified', () => {
    const { status, report } = doctor(['--model', join(ROOT, 'test')]);
    expect(status).toBe(3);
    expect(report.checks.at(-1)).toMatchObject({ name: 'model', status: 'problem' });
  });
});
