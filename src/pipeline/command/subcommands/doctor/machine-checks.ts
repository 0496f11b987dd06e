// Checks of a machine by its `MachineInfo`: for each thing that must be in order one sentence, and what helps.

import type { Capabilities } from '../../../../kernels/device/device.ts';
import { bytes } from '../../shared/progress.ts';
import type { ChildResult, MachineInfo, VulkanInfo } from './machine-info.ts';

/** One thing that must be in order. */
export interface Check {
  readonly name: 'node' | 'webgpu' | 'device' | 'limits' | 'shader cache' | 'memory' | 'model' | 'run';
  /** A warning is what the command can live with. */
  readonly status: 'ok' | 'warning' | 'problem';
  readonly message: string;
  /** What helps. */
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

/** WebGPU's default limits (the specification's table of limits), of those that kernels depend on. */
const DEFAULT_LIMITS = {
  maxBindingBytes: 2 ** 27,
  maxBufferBytes: 2 ** 28,
  workgroupBytes: 16_384,
  maxInvocations: 256,
  maxStorageBuffers: 8,
} as const satisfies Partial<Record<keyof Capabilities, number>>;

/** Memory below which a run of a small model may be ended by the system. */
const LITTLE_MEMORY = 2 ** 29;

/** Returns whether a version such as 20.19.1 is at least another, such as 20.19. */
function isAtLeast(version: string, least: string): boolean {
  const [a, b] = [version, least].map((text) => text.split('.').map(Number));
  for (let i = 0; i < b!.length; i++) if (a![i] !== b![i]) return (a![i] ?? 0) > b![i]!;
  return true;
}

function nodeCheck({ node, leastNode }: MachineInfo): Check {
  if (isAtLeast(node, leastNode)) return { name: 'node', status: 'ok', message: node };
  return {
    name: 'node',
    status: 'problem',
    message: `expected Node ${leastNode} or later, got ${node}`,
    help: `install Node ${leastNode} or later`,
  };
}

function webgpuCheck({ webgpu, webgpuBuild, platform }: MachineInfo): Check {
  if (webgpu === undefined)
    return {
      name: 'webgpu',
      status: 'problem',
      message: 'the package webgpu, which brings Dawn, is not installed',
      help: 'install diffclass-stream again with npm',
    };
  if (webgpuBuild) return { name: 'webgpu', status: 'ok', message: `${webgpu} (Dawn)` };
  return {
    name: 'webgpu',
    status: 'problem',
    message: `the package webgpu ${webgpu} has no build for ${platform}`,
    help: 'run on Linux, macOS or Windows, on x64 or arm64',
  };
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
  const problem = (message: string, help = driverHelp(info)): Check => ({
    name: 'device',
    status: 'problem',
    message,
    ...(help === undefined ? {} : { help }),
  });
  if (!probe)
    return problem(
      crashOf(probeEnd, 120) ?? `looking for devices failed: ${probeEnd.err.trim().split('\n').at(-1)}`,
    );
  if (probe.devices.length === 0)
    return problem(`no WebGPU device: ${vulkan ? driverState(vulkan) : 'the system offers none'}`);
  if (probe.opened === undefined)
    return problem(probe.problem ?? 'it does not open', 'choose another by --device');
  const software = probe.devices.every(({ capabilities }) => capabilities?.software);
  const message = software
    ? `${probe.opened} opens; it computes in software, on the CPU`
    : `${probe.opened} opens`;
  return { name: 'device', status: 'ok', message };
}

function limitsCheck({ probe }: MachineInfo): Check[] {
  const short = (probe?.devices ?? []).flatMap(({ index, capabilities }) =>
    Object.entries(DEFAULT_LIMITS).flatMap(([key, least]) => {
      const actual = capabilities?.[key as keyof typeof DEFAULT_LIMITS];
      return actual === undefined || actual >= least
        ? []
        : [`device ${index}: ${key} is ${actual}, below ${least}`];
    }),
  );
  if (!probe || probe.devices.length === 0) return [];
  if (short.length === 0) return [{ name: 'limits', status: 'ok', message: "at least WebGPU's defaults" }];
  return [
    {
      name: 'limits',
      status: 'problem',
      message: short.join('; '),
      help: 'choose another device by --device',
    },
  ];
}

/** Checks the shader cache of Mesa's drivers; where other drivers keep theirs is not known. */
function cacheCheck({ cache, probe, platform }: MachineInfo): Check[] {
  const mesa = probe?.devices.some(({ capabilities }) => /mesa/i.test(capabilities?.description ?? ''));
  if (!mesa || !platform.startsWith('linux')) return [];
  const { folder, disabled, writable, bytes: size } = cache;
  const slow = 'shaders are compiled anew at every start, some 20 s for a small network';
  if (disabled)
    return [
      {
        name: 'shader cache',
        status: 'warning',
        message: `MESA_SHADER_CACHE_DISABLE turns it off: ${slow}`,
        help: 'unset MESA_SHADER_CACHE_DISABLE',
      },
    ];
  if (!writable)
    return [
      {
        name: 'shader cache',
        status: 'warning',
        message: `${folder} cannot be written to: ${slow}`,
        help: 'set MESA_SHADER_CACHE_DIR to a folder that can be written to',
      },
    ];
  const content = size > 0 ? `holds ${bytes(size)}` : 'empty, so that the first run compiles for some 20 s';
  return [{ name: 'shader cache', status: 'ok', message: `${folder}: ${content}` }];
}

function memoryCheck({ memory }: MachineInfo): Check {
  const message = `${bytes(memory)} available`;
  if (memory >= LITTLE_MEMORY) return { name: 'memory', status: 'ok', message };
  return {
    name: 'memory',
    status: 'warning',
    message: `${message}, which is little`,
    help: 'end other programs, or run with --batch 1 --concurrency 1',
  };
}

function modelCheck({ model }: MachineInfo): Check {
  const [first, ...others] = model.problems;
  if (first === undefined) return { name: 'model', status: 'ok', message: `${model.name} is in order` };
  const more = others.length > 0 ? ` (and ${others.length} more)` : '';
  return {
    name: 'model',
    status: 'problem',
    message: `${first}${more}`,
    help: `"diffclass-stream info ${model.path}" lists every problem`,
  };
}

/** Checks a machine. */
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
    const message = `a sample image is ${label}, ${(100 * probability).toFixed(0)} %, in ${seconds.toFixed(1)} s with all that comes before`;
    return { name: 'run', status: 'ok', message };
  }
  if (end.timedOut)
    return {
      name: 'run',
      status: 'warning',
      message: `a sample image was not classified within ${limit} s, perhaps because shaders are compiled for the first time`,
      help: 'run doctor again with --run, which waits',
    };
  const said = end.err.trim().split('\n').at(-1) || `exit status ${end.status}`;
  return {
    name: 'run',
    status: 'problem',
    message: crashOf(end, limit) ?? said.replace(/^diffclass-stream: /, ''),
    help: 'choose another device by --device, or update its driver',
  };
}
