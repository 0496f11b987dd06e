// Finds out what `doctor` judges: Node, the package webgpu, drivers, devices, the shader cache, memory and the model.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { freemem, homedir } from 'node:os';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Description } from '../../../../graph/models/describe.ts';
import { driverPlan } from '../../../../install-driver.mjs';
import { sum } from '../../../../numbers.ts';
import { checkOutputFolder } from '../../shared/output-checks.ts';
import { readManifest } from '../../shared/provenance.ts';
import type { ProbeResult } from './device-probe.ts';

/** How a child process, which looked for devices or classified an image, ended. */
export interface ChildResult {
  readonly status: number | null;
  /** The signal that ended it, if one did; that means that the driver crashed it. */
  readonly signal: string | null;
  readonly timedOut: boolean;
  readonly out: string;
  readonly err: string;
}

/** The driver's cache of compiled shaders. */
export interface ShaderCache {
  readonly folder: string;
  readonly disabled: boolean;
  readonly writable: boolean;
  readonly bytes: number;
}

/** Everything that `checksOf` judges. */
export interface MachineInfo {
  readonly node: string;
  readonly leastNode: string;
  readonly platform: string;
  /** The version of the package webgpu; undefined if it is not installed. */
  readonly webgpu: string | undefined;
  /** Whether that package has a build for this system. */
  readonly webgpuBuild: boolean;
  /** The Vulkan loader and the files that name its drivers; undefined except on Linux. */
  readonly vulkan: VulkanInfo | undefined;
  /** How setup-driver.mjs would install a software driver here; undefined except on Linux. */
  readonly plan: ReturnType<typeof driverPlan> | undefined;
  readonly probe: ProbeResult | undefined;
  readonly probeEnd: ChildResult;
  readonly cache: ShaderCache;
  /** Bytes of memory that are available to this process. */
  readonly memory: number;
  readonly model: Description;
}

/** What is known of Vulkan by its files. */
export interface VulkanInfo {
  readonly loader: boolean;
  readonly drivers: readonly string[];
  /** The environment variable that names drivers instead of the folders, if one is set. */
  readonly variable?: string;
  /** Files that it names and that do not exist. */
  readonly missing: readonly string[];
}

const require = createRequire(import.meta.url);

/**
 * Runs another program of this package, compiled or not.
 *
 * @param program its path from this file, without the extension.
 */
export function runOwn(program: string, args: readonly string[], milliseconds: number): ChildResult {
  const file = fileURLToPath(new URL(program + extname(import.meta.url), import.meta.url));
  const { status, signal, stdout, stderr, error } = spawnSync(
    process.execPath,
    [...process.execArgv, file, ...args],
    { encoding: 'utf8', timeout: milliseconds, killSignal: 'SIGKILL', maxBuffer: 2 ** 26 },
  );
  const timedOut = (error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT';
  return { status, signal, timedOut, out: stdout ?? '', err: stderr ?? '' };
}

function webgpuInfo(): Pick<MachineInfo, 'webgpu' | 'webgpuBuild'> {
  try {
    const file = require.resolve('webgpu/package.json');
    const { version } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
    const build = `${process.platform}-${process.platform === 'darwin' ? 'universal' : process.arch}`;
    return { webgpu: version, webgpuBuild: existsSync(join(dirname(file), 'dist', build, 'dawn.node')) };
  } catch {
    return { webgpu: undefined, webgpuBuild: false };
  }
}

const ICD_FOLDERS = [
  '/etc/vulkan/icd.d',
  '/usr/local/etc/vulkan/icd.d',
  '/usr/local/share/vulkan/icd.d',
  '/usr/share/vulkan/icd.d',
];

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith('.json'))
      .map((name) => join(folder, name));
  } catch {
    return [];
  }
}

/** Returns whether the dynamic linker knows libvulkan.so.1, which Dawn loads by that name. */
function hasLoader(): boolean {
  const cache = spawnSync('ldconfig', ['-p'], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/sbin:/usr/sbin` },
  });
  if (cache.stdout?.includes('libvulkan.so.1')) return true;
  const folders = [...(process.env.LD_LIBRARY_PATH ?? '').split(':'), '/usr/lib', '/usr/lib64', '/lib'];
  return folders.some((folder) => folder !== '' && existsSync(join(folder, 'libvulkan.so.1')));
}

function vulkanInfo(): VulkanInfo | undefined {
  if (process.platform !== 'linux') return undefined;
  const variable = ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES'].find((name) => process.env[name]);
  const named = variable === undefined ? [] : process.env[variable]!.split(':').filter(Boolean);
  const data = process.env.XDG_DATA_HOME || join(homedir(), '.local/share');
  const candidates =
    variable === undefined
      ? [...ICD_FOLDERS, join(data, 'vulkan/icd.d')].flatMap(filesIn)
      : named.flatMap((path) => (path.endsWith('.json') ? [path] : filesIn(path)));
  return {
    loader: hasLoader(),
    drivers: candidates.filter((path) => existsSync(path)),
    ...(variable === undefined ? {} : { variable }),
    missing: named.filter((path) => !existsSync(path)),
  };
}

function bytesIn(folder: string): number {
  try {
    const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
    const sizes = entries.map((entry) =>
      entry.isFile() ? statSync(join(entry.parentPath ?? entry.path, entry.name)).size : 0,
    );
    return sum(sizes);
  } catch {
    return 0;
  }
}

/** Finds Mesa's cache of compiled shaders; its newer variable comes first (docs.mesa3d.org/envvars.html). */
async function cacheInfo(env: NodeJS.ProcessEnv): Promise<ShaderCache> {
  const given = env.MESA_SHADER_CACHE_DIR || env.MESA_GLSL_CACHE_DIR;
  const folder = given || env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const disabled = /^(1|true|yes|y)$/i.test(
    env.MESA_SHADER_CACHE_DISABLE ?? env.MESA_GLSL_CACHE_DISABLE ?? '',
  );
  const names = ['mesa_shader_cache_db', 'mesa_shader_cache'];
  const bytes = names.reduce((sum, name) => sum + bytesIn(join(folder, name)), 0);
  const writable = await checkOutputFolder('', folder).then(
    () => true,
    () => false,
  );
  return { folder, disabled, writable, bytes };
}

/** Seconds that the search for devices may take. */
export const PROBE_LIMIT = 120;

/** Looks for devices in a process of its own, because a driver may crash or hang. */
function probeInfo(device: string | undefined): Pick<MachineInfo, 'probe' | 'probeEnd'> {
  const probeEnd = runOwn('./device-probe', device === undefined ? [] : [device], 1000 * PROBE_LIMIT);
  try {
    return { probe: JSON.parse(probeEnd.out.trim().split('\n').at(-1)!) as ProbeResult, probeEnd };
  } catch {
    return { probe: undefined, probeEnd };
  }
}

/** Gathers the info of this machine; `device` chooses the device to open instead of the first one. */
export async function gatherInfo(
  device: string | undefined,
  describe: () => Promise<Description>,
): Promise<MachineInfo> {
  const linux = process.platform === 'linux';
  return {
    node: process.versions.node,
    leastNode: readManifest().engines.node.replace(/^\D*/, ''),
    platform: `${process.platform}-${process.arch}`,
    ...webgpuInfo(),
    vulkan: vulkanInfo(),
    plan: linux ? driverPlan() : undefined,
    ...probeInfo(device),
    cache: await cacheInfo(process.env),
    memory: process.availableMemory?.() ?? freemem(),
    model: await describe(),
  };
}
