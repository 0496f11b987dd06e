// Judges the `MachineInfo` of a machine: for each thing that must be in order, one sentence and what helps.

import type { Capabilities } from '../../../../kernels/device/device.ts';
import { bytes } from '../../shared/progress.ts';
import { type ChildResult, type MachineInfo, PROBE_LIMIT, type VulkanInfo } from './machine-info.ts';

/** One thing that must be in order. */
export interface Check {
  readonly name: 'node' | 'webgpu' | 'device' | 'limits' | 'shader cache' | 'memory' | 'model' | 'run';
  /** The command works in spite of a warning, but not in spite of a problem. */
  readonly status: 'ok' | 'warning' | 'problem';
  readonly message: string;
  /** What the user can do about it. */
  readonly help?: string;
}

/** Exit statuses by the check that found a problem. */
const STATUS: Readonly<Record<Check['name'], number>> = {
  node: 2,
  webgpu: 4,
  device: 4,
  limits: 4,
  'shader cache': 0,
  memory: 0,
  model: 3,
  run: 4,
};

/** Returns the exit status of the first problem; 0 if there is none. */
export function statusOfChecks(checks: readonly Check[]): number {
  const problem = checks.find(({ status }) => status === 'problem');
  return problem ? STATUS[problem.name] : 0;
}

/** WebGPU's default values (the specification's table of limits) of the limits that kernels depend on. */
const DEFAULT_LIMITS = {
  maxBindingBytes: 2 ** 27,
  maxBufferBytes: 2 ** 28,
  workgroupBytes: 16_384,
  maxInvocations: 256,
  maxStorageBuffers: 8,
} as const satisfies Partial<Record<keyof Capabilities, number>>;

/** Bytes of memory below which the system may end a run of a small model. */
const LITTLE_MEMORY = 2 ** 29;

/** Returns whether a version such as 20.19.1 is at least another, such as 20.19. */
function isAtLeast(version: string, least: string): boolean {
  const [a, b] = [version, least].map((text) => text.split('.').map(Number));
  for (let i = 0; i < b!.length; i++) if (a![i] !== b![i]) return (a![i] ?? 0) > b![i]!;
  return true;
}

const ok = (name: Check['name'], message: string): Check => ({ name, status: 'ok', message });

const warning = (name: Check['name'], message: string, help: string): Check => ({
  name,
  status: 'warning',
  message,
  help,
});

const problem = (name: Check['name'], message: string, help: string | undefined): Check => ({
  name,
  status: 'problem',
  message,
  ...(help === undefined ? {} : { help }),
});

function nodeCheck({ node, leastNode }: MachineInfo): Check {
  if (isAtLeast(node, leastNode)) return ok('node', node);
  const later = `Node ${leastNode} or later`;
  return problem('node', `expected ${later}, got ${node}`, `install ${later}`);
}

function webgpuCheck({ webgpu, webgpuBuild, platform }: MachineInfo): Check {
  if (webgpu === undefined)
    return problem(
      'webgpu',
      'the package webgpu, which contains Dawn, is not installed',
      'install diffclass-stream again with npm',
    );
  if (webgpuBuild) return ok('webgpu', `${webgpu} (Dawn)`);
  const message = `the package webgpu ${webgpu} has no build for ${platform}`;
  return problem('webgpu', message, 'run on Linux, macOS or Windows, on x64 or arm64');
}

/** Suggests what helps if no device is found on Linux. */
function driverHelp({ vulkan, plan }: MachineInfo): string | undefined {
  const { variable, missing = [] } = vulkan ?? {};
  if (variable !== undefined && missing.length > 0) return `unset ${variable}, or name files that exist`;
  if (!plan) return 'update the graphics driver';
  if ('sentence' in plan) return plan.sentence;
  const from = plan.release ? ` from ${plan.release}` : '';
  return `"diffclass-stream doctor --fix" installs a software driver: ${plan.packages.join(' and ')}${from}`;
}

/** Explains why there may be no device, by the files of Vulkan. */
function driverState({ loader, drivers, variable, missing }: VulkanInfo): string {
  if (variable !== undefined && missing.length > 0)
    return `${variable} names ${missing.join(', ')}, which does not exist`;
  if (!loader) return 'the Vulkan loader (libvulkan.so.1) is not installed';
  if (drivers.length === 0) return 'no Vulkan driver is installed';
  return `Dawn accepts none of the Vulkan drivers that are installed (${drivers.length} files such as ${drivers[0]})`;
}

const crashOf = ({ signal, timedOut }: ChildResult, seconds: number): string | undefined =>
  timedOut
    ? `the driver did not answer within ${seconds} s`
    : signal
      ? `the driver crashed (${signal})`
      : undefined;

function deviceCheck(info: MachineInfo): Check {
  const { probe, probeEnd, vulkan } = info;
  if (!probe) {
    const failure = `looking for devices failed: ${probeEnd.err.trim().split('\n').at(-1)}`;
    return problem('device', crashOf(probeEnd, PROBE_LIMIT) ?? failure, driverHelp(info));
  }
  if (probe.devices.length === 0) {
    const state = vulkan ? driverState(vulkan) : 'the system offers none';
    return problem('device', `no WebGPU device: ${state}`, driverHelp(info));
  }
  if (probe.opened === undefined)
    return problem('device', probe.problem ?? 'it does not open', 'choose another by --device');
  const software = probe.devices.every(({ capabilities }) => capabilities?.software);
  return ok('device', `${probe.opened} opens${software ? '; it computes in software, on the CPU' : ''}`);
}

function limitsCheck({ probe }: MachineInfo): Check[] {
  if (!probe || probe.devices.length === 0) return [];
  const tooLow = probe.devices.flatMap(({ index, capabilities }) =>
    Object.entries(DEFAULT_LIMITS).flatMap(([key, least]) => {
      const actual = capabilities?.[key as keyof typeof DEFAULT_LIMITS];
      return actual === undefined || actual >= least
        ? []
        : [`device ${index}: ${key} is ${actual}, below ${least}`];
    }),
  );
  if (tooLow.length === 0) return [ok('limits', "at least WebGPU's defaults")];
  return [problem('limits', tooLow.join('; '), 'choose another device by --device')];
}

/** Checks the shader cache of Mesa's drivers; where other drivers keep theirs is not known. */
function cacheCheck({ cache, probe, platform }: MachineInfo): Check[] {
  const mesa = probe?.devices.some(({ capabilities }) => /mesa/i.test(capabilities?.description ?? ''));
  if (!mesa || !platform.startsWith('linux')) return [];
  const { folder, disabled, writable, bytes: size } = cache;
  const slow = 'shaders are compiled anew at every start, some 20 s for a small network';
  if (disabled) {
    const message = `MESA_SHADER_CACHE_DISABLE turns it off: ${slow}`;
    return [warning('shader cache', message, 'unset MESA_SHADER_CACHE_DISABLE')];
  }
  if (!writable) {
    const help = 'set MESA_SHADER_CACHE_DIR to a folder that can be written to';
    return [warning('shader cache', `${folder} cannot be written to: ${slow}`, help)];
  }
  const content = size > 0 ? `holds ${bytes(size)}` : 'empty, so that the first run compiles for some 20 s';
  return [ok('shader cache', `${folder}: ${content}`)];
}

function memoryCheck({ memory }: MachineInfo): Check {
  const message = `${bytes(memory)} available`;
  if (memory >= LITTLE_MEMORY) return ok('memory', message);
  const help = 'end other programs, or run with --batch 1 --concurrency 1';
  return warning('memory', `${message}, which is little`, help);
}

function modelCheck({ model }: MachineInfo): Check {
  const [first, ...others] = model.problems;
  if (first === undefined) return ok('model', `${model.name} is in order`);
  const more = others.length > 0 ? ` (and ${others.length} more)` : '';
  return problem('model', `${first}${more}`, `"diffclass-stream info ${model.path}" lists every problem`);
}

/** Returns all checks of a machine. */
export const checksOf = (info: MachineInfo): Check[] => [
  nodeCheck(info),
  webgpuCheck(info),
  deviceCheck(info),
  ...limitsCheck(info),
  ...cacheCheck(info),
  memoryCheck(info),
  modelCheck(info),
];

/** Judges how a real classification ended, within a limit in seconds. */
export function runCheck(end: ChildResult, seconds: number, limit: number): Check {
  if (end.status === 0) {
    const { label, probability } = JSON.parse(end.out) as { label: string; probability: number };
    const percent = (100 * probability).toFixed(0);
    return ok(
      'run',
      `a sample image is ${label}, ${percent} %, in ${seconds.toFixed(1)} s, start and compiling included`,
    );
  }
  if (end.timedOut)
    return warning(
      'run',
      `a sample image was not classified within ${limit} s, perhaps because shaders are compiled for the first time`,
      'run doctor again with --run, which waits',
    );
  const last = end.err.trim().split('\n').at(-1) || `exit status ${end.status}`;
  const message = crashOf(end, limit) ?? last.replace(/^diffclass-stream: /, '');
  return problem('run', message, 'choose another device by --device, or update its driver');
}
