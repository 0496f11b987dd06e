// Packs a kit: `bench -- device` for a machine that has a GPU with its Vulkan driver, but no network and no Node.
//
//   npm run bench -- device --pack DIR [--weights NAME,NAME] [--compress gz|xz] [--with FILE]...
//
// On the other machine, unpack the archive. `diffclass-bench-linux-x64/run.sh --probe` checks in seconds that the kit
// works, `run.sh [options]` runs the benchmark. With TEST_KIT=1, `npx vitest run test/package/kit.test.ts` packs a
// kit and starts it in an otherwise empty root folder (needs to be root; see test/package/kit-in-bare-root.sh).

import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, extname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build, type Plugin } from 'esbuild';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const NAME = 'diffclass-bench-linux-x64';
const MIB = 2 ** 20;

/** The program that compresses an archive, and the largest size that is allowed. */
const COMPRESSION = {
  gz: { program: 'gzip -9', limit: 48 * MIB },
  xz: { program: 'xz -6 -T0', limit: 40 * MIB },
} as const;

const isCompression = (name: string): name is keyof typeof COMPRESSION => Object.hasOwn(COMPRESSION, name);

/** Libraries that the kit contains for machines without them, by folder: soname and Debian package. */
const LIBRARIES: Readonly<Record<string, readonly (readonly [soname: string, debian: string])[]>> = {
  vulkan: [['libvulkan.so.1', 'libvulkan1']],
  cxx: [
    ['libstdc++.so.6', 'libstdc++6'],
    ['libgcc_s.so.1', 'libgcc-s1'],
  ],
  // NVIDIA's Vulkan driver links against them.
  x11: [
    ['libX11.so.6', 'libx11-6'],
    ['libXext.so.6', 'libxext6'],
    ['libxcb.so.1', 'libxcb1'],
    ['libXau.so.6', 'libxau6'],
    ['libXdmcp.so.6', 'libxdmcp6'],
    ['libbsd.so.0', 'libbsd0'],
    ['libmd.so.0', 'libmd0'],
  ],
  // Without them NVIDIA's driver 580 loads on a machine without a display, but creates no Vulkan instance.
  glvnd: [
    ['libGLdispatch.so.0', 'libglvnd0'],
    ['libEGL.so.1', 'libegl1'],
    ['libGLX.so.0', 'libglx0'],
  ],
};

/** Libraries that the packed Node may need: those of glibc, and libstdc++ and libgcc_s from the kit. */
const ALLOWED =
  /^(linux-vdso|ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so(\.|$)/;

const run = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

function works(program: string, ...args: string[]): boolean {
  try {
    run(program, ...args);
    return true;
  } catch {
    return false;
  }
}

/**
 * Gives every source file in the bundle its path in the repository, below the root of the kit. So a source still finds
 * files relative to itself (weights, package.json, Python scripts).
 */
const sourceAddresses: Plugin = {
  name: 'source-addresses',
  setup({ onLoad }) {
    onLoad({ filter: /\.(ts|mjs)$/ }, ({ path }) => {
      const inside = relative(ROOT, path);
      if (inside.startsWith('..') || inside.startsWith('node_modules')) return undefined;
      const address = `globalThis.kitAddress(${JSON.stringify(inside)})`;
      const contents = readFileSync(path, 'utf8')
        .replaceAll('import.meta.url', address)
        .replaceAll('import.meta.dirname', `globalThis.kitFolder(${JSON.stringify(inside)})`);
      return { contents, loader: extname(path) === '.ts' ? 'ts' : 'js' };
    });
  },
};

// CommonJS packages in the bundle load Node's own modules with `require`.
const PREAMBLE = `import { createRequire as kitRequire } from 'node:module';
import { fileURLToPath as kitPath } from 'node:url';
globalThis.require ??= kitRequire(import.meta.url);
globalThis.kitAddress = (path) => new URL(path, import.meta.url).href;
globalThis.kitFolder = (path) => kitPath(new URL('.', new URL(path, import.meta.url)));`;

async function bundle(outfile: string): Promise<void> {
  await build({
    stdin: {
      contents: `import { command } from './bench/device/command.ts'; await command();`,
      resolveDir: ROOT,
    },
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    external: ['webgpu', 'sharp', 'koffi', './pack.ts'],
    plugins: [sourceAddresses],
    banner: { js: PREAMBLE },
    logLevel: 'warning',
  });
}

/** Strips the symbols of a program or library if that makes it smaller and it still works. */
function strip(path: string, stillWorks: (path: string) => boolean): void {
  const stripped = `${path}.stripped`;
  copyFileSync(path, stripped);
  const better =
    works('strip', stripped) && statSync(stripped).size < statSync(path).size && stillWorks(stripped);
  if (better) copyFileSync(stripped, path);
  rmSync(stripped);
}

/** Copies the running Node. @throws Error if it needs libraries that the kit does not contain. */
function packNode(folder: string): string {
  const node = join(folder, 'node');
  mkdirSync(folder);
  copyFileSync(realpathSync(process.execPath), node);
  chmodSync(node, 0o755);
  const needed = [...run('ldd', node).matchAll(/^\s*(?:\S*\/)?(\S+\.so[.\d]*)/gm)].map(
    ([, name = '']) => name,
  );
  const missing = needed.filter((name) => !ALLOWED.test(name));
  if (missing.length > 0)
    throw new Error(
      `expected a Node that needs only the C and C++ libraries, got one that needs ${missing.join(', ')}: use Node from nodejs.org`,
    );
  strip(node, (path) => works(path, '--eval', 'new WebAssembly.Memory({ initial: 1 })'));
  return node;
}

/** Copies the packages that are not in the bundle. */
function packPackages(folder: string, node: string): void {
  const source = join(ROOT, 'node_modules');
  const dawn = join(folder, 'webgpu/dist/linux-x64/dawn.node');
  mkdirSync(dirname(dawn), { recursive: true });
  copyFileSync(join(source, 'webgpu/dist/linux-x64/dawn.node'), dawn);
  strip(dawn, (path) => works(node, '--eval', `process.dlopen({ exports: {} }, ${JSON.stringify(path)})`));
  for (const file of ['index.js', 'package.json', 'LICENSE.md'])
    copyFileSync(join(source, 'webgpu', file), join(folder, 'webgpu', file));
  // src/pipeline/images/png.ts loads it with `require`.
  for (const file of ['lib', 'package.json', 'LICENSE'])
    cpSync(join(source, 'pngjs', file), join(folder, 'pngjs', file), { recursive: true });
}

/** Returns the paths of the installed x86-64 libraries by soname, from the linker's cache. */
function installedLibraries(): ReadonlyMap<string, string> {
  const program = existsSync('/sbin/ldconfig') ? '/sbin/ldconfig' : 'ldconfig';
  const lines = works(program, '-p') ? run(program, '-p') : '';
  return new Map(
    [...lines.matchAll(/^\s*(\S+) \(libc6,x86-64[^)]*\) => (\S+)$/gm)].map(([, name = '', path = '']) => [
      name,
      path,
    ]),
  );
}

/** Downloads a library from the machine's Debian mirror into a temporary folder. @throws Error if that fails. */
export function libraryOfDebian(soname: string, debian: string, temporary: string): string {
  const unpacked = join(temporary, debian);
  try {
    mkdirSync(unpacked, { recursive: true });
    execFileSync('apt-get', ['-q', 'download', debian], { cwd: unpacked, stdio: 'pipe' });
    for (const file of readdirSync(unpacked))
      if (file.endsWith('.deb')) run('dpkg', '-x', join(unpacked, file), unpacked);
  } catch (cause) {
    throw new Error(`expected ${soname} on this machine or ${debian} from its Debian mirror, got neither`, {
      cause,
    });
  }
  const found = ['usr/lib', 'lib'].map((folder) => join(unpacked, folder, 'x86_64-linux-gnu', soname));
  const path = found.find((candidate) => existsSync(candidate));
  if (!path) throw new Error(`expected ${soname} in Debian's package ${debian}, got a package without it`);
  return path;
}

function packLibraries(folder: string, temporary: string): void {
  const installed = installedLibraries();
  for (const [group, libraries] of Object.entries(LIBRARIES)) {
    mkdirSync(join(folder, group), { recursive: true });
    for (const [soname, debian] of libraries) {
      const path = installed.get(soname) ?? libraryOfDebian(soname, debian, temporary);
      copyFileSync(path, join(folder, group, soname));
    }
  }
}

/** Copies shipped models, without their training scripts. @throws Error if there is no shipped model of a name. */
function packWeights(names: readonly string[], folder: string): void {
  const shipped = readdirSync(join(ROOT, 'weights'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
  mkdirSync(folder);
  for (const name of names) {
    if (!shipped.includes(name))
      throw new Error(`--weights: expected names from ${shipped.join(', ')}, got "${name}"`);
    const filter = (path: string) => !/\.py$/.test(path);
    cpSync(join(ROOT, 'weights', name), join(folder, name), { recursive: true, filter });
  }
}

/** Copies the Python scripts of this benchmark. */
function packScripts(folder: string): void {
  for (const path of ['.', 'device'])
    for (const file of readdirSync(join(ROOT, 'bench', path)))
      if (/^device.*\.py$/.test(file) || (path === 'device' && file.endsWith('.py')))
        cpSync(join(ROOT, 'bench', path, file), join(folder, path, file));
}

function packExtra(files: readonly string[], folder: string): void {
  if (files.length > 0) mkdirSync(folder);
  for (const file of files) {
    const target = join(folder, basename(file));
    if (existsSync(target)) throw new Error(`--with: expected different names, got ${basename(file)} twice`);
    copyFileSync(file, target);
  }
}

interface PackOptions {
  /** Names of shipped models. */
  readonly weights: readonly string[];
  readonly compress: keyof typeof COMPRESSION;
  /** Paths of further files, which go into the folder `extra`. */
  readonly extra: readonly string[];
}

/** Writes the archive into a folder and returns its path. @throws Error on a machine other than linux-x64. */
export async function pack(folder: string, { weights, compress, extra }: PackOptions): Promise<string> {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error(
      `--pack: expected linux-x64, got ${process.platform}-${process.arch}: pack the kit on a Linux machine with x86-64`,
    );
  const temporary = mkdtempSync(join(tmpdir(), 'diffclass-kit-'));
  try {
    const kit = join(temporary, NAME);
    mkdirSync(join(kit, 'bench'), { recursive: true });
    await bundle(join(kit, 'bench.js'));
    copyFileSync(join(ROOT, 'package.json'), join(kit, 'package.json'));
    copyFileSync(join(ROOT, 'LICENSE'), join(kit, 'LICENSE'));
    copyFileSync(join(ROOT, 'bench/device/run.sh'), join(kit, 'run.sh'));
    chmodSync(join(kit, 'run.sh'), 0o755);
    packScripts(join(kit, 'bench'));
    const node = packNode(join(kit, 'bin'));
    packPackages(join(kit, 'node_modules'), node);
    packLibraries(join(kit, 'lib'), temporary);
    packWeights(weights, join(kit, 'weights'));
    packExtra(extra, join(kit, 'extra'));

    mkdirSync(folder, { recursive: true });
    const { program, limit } = COMPRESSION[compress];
    const archive = join(folder, `${NAME}.tar.${compress}`);
    run(
      'tar',
      ...['--create', '--file', archive, '--directory', temporary, '--use-compress-program', program],
      ...['--sort=name', '--owner=0', '--group=0', '--numeric-owner', NAME],
    );
    const { size } = statSync(archive);
    if (size > limit)
      throw new Error(
        `--pack: expected at most ${limit / MIB} MiB, got ${(size / MIB).toFixed(1)} in ${archive}: leave out weights or extra files, or use --compress xz`,
      );
    return archive;
  } finally {
    rmSync(temporary, { recursive: true });
  }
}

/** Runs `npm run bench -- device --pack DIR`: packs the kit and prints how to use it. */
export async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      pack: { type: 'string' },
      weights: { type: 'string', default: 'fashion-mnist,fashion-mnist-multi-head,cifar-10' },
      compress: { type: 'string', default: 'gz' },
      with: { type: 'string', multiple: true, default: [] },
    },
  });
  const { pack: folder = '', weights, compress, with: extra } = values;
  if (folder === '') throw new Error('--pack: expected a folder for the archive, got none');
  if (!isCompression(compress)) throw new Error(`--compress: expected gz or xz, got "${compress}"`);
  const start = performance.now();
  const archive = await pack(folder, { weights: weights.split(',').filter(Boolean), compress, extra });
  const size = (statSync(archive).size / MIB).toFixed(1);
  console.log(`${archive}: ${size} MiB, packed in ${((performance.now() - start) / 1000).toFixed(0)} s`);
  console.log(`on the other machine: tar -xf ${basename(archive)} && ${NAME}/run.sh --probe`);
}
