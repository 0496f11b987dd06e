// Tests the doctor on descriptions of many kinds of machines. Only the last group examines this machine, without a
// device.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { doctorText } from '../../src/pipeline/command/subcommands/doctor/doctor.ts';
import type { Check } from '../../src/pipeline/command/subcommands/doctor/machine-checks.ts';
import {
  checksOf,
  runCheck,
  statusOfChecks,
} from '../../src/pipeline/command/subcommands/doctor/machine-checks.ts';
import type { ChildResult, MachineInfo } from '../../src/pipeline/command/subcommands/doctor/machine-info.ts';
import { cli } from './captured-cli.ts';
import { fakeDescribe } from './fake-folder.ts';

const CAPABILITIES = {
  family: 'subgroup',
  subgroupSize: 8,
  f16: true,
  timestamps: true,
  maxBindingBytes: 2 ** 27,
  maxBufferBytes: 2 ** 32,
  workgroupBytes: 32_768,
  maxInvocations: 1024,
  maxStorageBuffers: 16,
  description: 'mesa software llvmpipe: Mesa 25.0.7',
  software: true,
} as const;

const DEVICE = {
  index: 0,
  name: 'llvmpipe',
  backend: 'vulkan',
  vendor: 'mesa',
  architecture: 'software',
  capabilities: CAPABILITIES,
};

const END: ChildResult = { status: 0, signal: null, timedOut: false, out: '', err: '' };

/** Returns a machine without problems, except for `changes`. */
const machine = async (changes: Partial<MachineInfo> = {}): Promise<MachineInfo> => ({
  node: '20.19.0',
  leastNode: '20.19',
  platform: 'linux-x64',
  webgpu: '0.6.2',
  webgpuBuild: true,
  vulkan: { loader: true, drivers: ['/usr/share/vulkan/icd.d/lvp_icd.json'], missing: [] },
  plan: { packages: ['libvulkan1', 'mesa-vulkan-drivers'], release: 'bookworm-backports' },
  probe: { devices: [DEVICE], opened: 'llvmpipe' },
  probeEnd: END,
  cache: { folder: '/somewhere/.cache', disabled: false, writable: true, bytes: 3_000_000 },
  memory: 2 ** 33,
  model: await fakeDescribe()('./fake'),
  ...changes,
});

const NONE = { probe: { devices: [], problem: 'no WebGPU device was found' } } as const;

/** Returns the check that found a problem, and the exit status. */
async function found(changes: Partial<MachineInfo>): Promise<readonly [Check | undefined, number]> {
  const checks = checksOf(await machine(changes));
  return [checks.find(({ status }) => status !== 'ok'), statusOfChecks(checks)];
}

test('without problems every check is ok', async () => {
  const checks = checksOf(await machine());
  expect(checks.map(({ name, status }) => `${name}: ${status}`)).toEqual(
    ['node', 'webgpu', 'device', 'limits', 'shader cache', 'memory', 'model'].map((name) => `${name}: ok`),
  );
  expect(statusOfChecks(checks)).toBe(0);
});

describe('no device', () => {
  test('Debian 12 with its own Mesa: the driver is too old, and --fix helps', async () => {
    const [check, status] = await found(NONE);
    expect(status).toBe(4);
    expect(check?.message).toMatch(
      /^no WebGPU device: Dawn accepts none of the Vulkan drivers .*lvp_icd\.json/,
    );
    expect(check?.help).toBe(
      '"diffclass-stream doctor --fix" installs a software driver: libvulkan1 and mesa-vulkan-drivers from bookworm-backports',
    );
  });

  test.each([
    [
      { loader: false, drivers: [], missing: [] },
      'the Vulkan loader (libvulkan.so.1) is not installed',
      '--fix',
    ],
    [{ loader: true, drivers: [], missing: [] }, 'no Vulkan driver is installed', '--fix'],
    [
      { loader: true, drivers: [], variable: 'VK_DRIVER_FILES', missing: ['/x.json'] },
      'VK_DRIVER_FILES names /x.json, which does not exist',
      'unset VK_DRIVER_FILES',
    ],
  ])('%j', async (vulkan, message, help) => {
    const [check, status] = await found({ ...NONE, vulkan });
    expect([check?.message, status]).toEqual([`no WebGPU device: ${message}`, 4]);
    expect(check?.help).toContain(help);
  });

  test('other systems: advice for the system, or an update of the driver', async () => {
    const [fedora] = await found({ ...NONE, plan: { sentence: 'install a Vulkan driver' } });
    expect(fedora?.help).toBe('install a Vulkan driver');
    const [mac] = await found({ ...NONE, platform: 'darwin-arm64', vulkan: undefined, plan: undefined });
    expect([mac?.message, mac?.help]).toEqual([
      'no WebGPU device: the system offers none',
      'update the graphics driver',
    ]);
  });

  test('a driver that crashes or hangs', async () => {
    const crashed = { ...END, status: null, signal: 'SIGSEGV' };
    expect((await found({ probe: undefined, probeEnd: crashed }))[0]?.message).toBe(
      'the driver crashed (SIGSEGV)',
    );
    const hung = { ...END, status: null, signal: 'SIGKILL', timedOut: true };
    expect((await found({ probe: undefined, probeEnd: hung }))[0]?.message).toContain('did not answer');
  });
});

describe('other faults', () => {
  test.each<[string, Partial<MachineInfo>, number, string]>([
    ['an old Node', { node: '20.9.0' }, 2, 'expected Node 20.19 or later, got 20.9.0'],
    ['no webgpu', { webgpu: undefined }, 4, 'the package webgpu, which contains Dawn, is not installed'],
    ['no build', { webgpuBuild: false, platform: 'linux-riscv64' }, 4, 'has no build for linux-riscv64'],
    ['another device', { probe: { devices: [DEVICE], problem: 'no such device' } }, 4, 'no such device'],
    [
      'low limits',
      {
        probe: {
          devices: [{ ...DEVICE, capabilities: { ...CAPABILITIES, maxStorageBuffers: 4 } }],
          opened: 'x',
        },
      },
      4,
      'device 0: maxStorageBuffers is 4, below 8',
    ],
    ['little memory', { memory: 2 ** 28 }, 0, '268 MB available, which is little'],
  ])('%s', async (_, changes, status, message) => {
    const [check, actual] = await found(changes);
    expect(check?.message).toContain(message);
    expect(actual).toBe(status);
    expect(check?.help).toMatch(/\w/);
  });

  test('of the model: shows the first one and exits with 3', async () => {
    const model = await fakeDescribe({ problems: ['vae: no such folder', 'unet: no such folder'] })('./m');
    const [check, status] = await found({ model });
    expect([check?.message, check?.help, status]).toEqual([
      'vae: no such folder (and 1 more)',
      '"diffclass-stream info ./m" lists every problem',
      3,
    ]);
  });

  test('of the shader cache: only a warning, and none if the driver is not Mesa', async () => {
    const cache = { folder: '/x', disabled: false, writable: false, bytes: 0 };
    const [check, status] = await found({ cache });
    expect([check?.name, status]).toEqual(['shader cache', 0]);
    expect((await found({ cache: { ...cache, disabled: true } }))[0]?.help).toContain('unset');
    const nvidia = { ...CAPABILITIES, description: 'nvidia hopper' };
    const probe = { devices: [{ ...DEVICE, capabilities: nvidia }], opened: 'x' };
    expect((await found({ cache, probe }))[0]).toBeUndefined();
  });
});

describe('a real classification', () => {
  const out = JSON.stringify({ label: 'Bag', probability: 0.876 });

  test.each<[string, Partial<ChildResult>, Check['status'], string]>([
    ['works', { out }, 'ok', 'a sample image is Bag, 88 %, in 1.2 s'],
    ['takes long', { status: null, timedOut: true }, 'warning', 'was not classified within 5 s'],
    ['crashes', { status: null, signal: 'SIGSEGV' }, 'problem', 'the driver crashed (SIGSEGV)'],
    [
      'fails',
      { status: 4, err: 'diffclass-stream: the device was lost\n' },
      'problem',
      'the device was lost',
    ],
  ])('%s', (_, end, status, message) => {
    const check = runCheck({ ...END, ...end }, 1.23, 5);
    expect(check.status).toBe(status);
    expect(check.message).toContain(message);
  });
});

test('the text report shows devices that cannot be chosen, and advice', async () => {
  const twin = { ...DEVICE, index: 1, capabilities: undefined };
  const text = doctorText([DEVICE, twin], checksOf(await machine({ memory: 0 })));
  expect(text).toContain('  0  llvmpipe (vulkan, mesa, software)\n');
  expect(text).toContain(
    '     in software, kernels of the family subgroup, subgroups of 8, f16, timestamps\n',
  );
  expect(text).toContain('  1  llvmpipe (vulkan, mesa, software)\n     cannot be chosen: ');
  expect(text).toMatch(/^ {2}warning {2}memory {8}0 B available, which is little\n {25}what helps: /m);
  expect(doctorText([], [])).toContain('devices\n  none\n');
});

describe('the command line', () => {
  test('takes no inputs', async () => {
    const { status, err } = await cli(['doctor', 'x']);
    expect(status).toBe(2);
    expect(err).toContain('too many arguments');
  });

  test('rejects an unknown model as a usage error', async () => {
    const { status, err } = await cli(['doctor', '--model', 'fashion-mnits']);
    expect(status).toBe(2);
    expect(err).toContain('--model: no model "fashion-mnits"');
  });

  test('as a process without a device: exits with 4, and --fix changes nothing', ({ skip }) => {
    skip(process.platform !== 'linux', 'only on Linux can a variable hide every driver');
    const program = join(import.meta.dirname, '../../src/pipeline/command/cli.ts');
    const argv = ['--import', 'tsx', program, 'doctor', '--format', 'json', '--fix'];
    const env = { ...process.env, VK_DRIVER_FILES: '/nonexistent' };
    const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8', env });
    const { devices, fixed, checks } = JSON.parse(stdout);
    expect([status, stderr, devices, fixed]).toEqual([4, '', [], []]);
    expect(checks).toContainEqual({
      name: 'device',
      status: 'problem',
      message: 'no WebGPU device: VK_DRIVER_FILES names /nonexistent, which does not exist',
      help: 'unset VK_DRIVER_FILES, or name files that exist',
    });
  });
});
