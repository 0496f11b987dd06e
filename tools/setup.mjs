// Prepares a fresh clone: installs npm packages and a WebGPU adapter, and compiles the command. It is plain JavaScript
// without dependencies, because it runs before there are any. `npm run demo` and `npm test` start with it. If there is
// nothing to do, it prints nothing and takes a fraction of a second. All output goes to standard error. `npm run demo`
// passes --demo: it needs the packages of a user and the compiler, but no developer tools.

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installDriver } from '../src/install-driver.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SELF = fileURLToPath(import.meta.url);
const LEAST_NODE = [20, 19];
const ICD_FOLDERS = ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d', '/usr/local/share/vulkan/icd.d'];

class SetupError extends Error {}

const say = (text) => process.stderr.write(`setup: ${text}\n`);

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < LEAST_NODE[0] || (major === LEAST_NODE[0] && minor < LEAST_NODE[1])) {
    throw new SetupError(
      `Node ${process.versions.node} is too old; install Node ${LEAST_NODE.join('.')} or later.`,
    );
  }
}

/** Runs a command with its output on standard error. Returns whether it succeeded. */
function runs(program, args, options = {}) {
  const result = spawnSync(program, args, { cwd: ROOT, stdio: ['ignore', 2, 2], ...options });
  return result.status === 0;
}

const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** What the demo needs of devDependencies: the compiler, and RxJS, which users of the package install themselves. */
const DEMO_PACKAGES = ['typescript', 'rxjs'];

/** Returns the packages of the lockfile, by path, that the demo or development needs. */
function neededPackages(packages, forDemo) {
  const demoPaths = DEMO_PACKAGES.map((name) => `node_modules/${name}`);
  return Object.entries(packages).filter(
    ([path, { dev }]) => path !== '' && !(forDemo && dev && !demoPaths.includes(path)),
  );
}

/** Whether node_modules has these packages of the lockfile (optional ones may be for other platforms). */
function packagesMatch(needed) {
  try {
    const installed = readJson(join(ROOT, 'node_modules/.package-lock.json')).packages;
    return needed.every(([path, entry]) => {
      const found = installed[path];
      if (entry.optional && !found) return true;
      const same = found?.version === entry.version && found?.integrity === entry.integrity;
      return same && existsSync(join(ROOT, path, 'package.json'));
    });
  } catch {
    return false;
  }
}

function runNpm(args) {
  const all = [...args, '--no-audit', '--no-fund', '--loglevel=error'];
  const npm = process.env.npm_execpath;
  const done =
    npm && basename(npm) === 'npm-cli.js'
      ? runs(process.execPath, [npm, ...all])
      : runs('npm', all, { shell: process.platform === 'win32' });
  if (!done) throw new SetupError('npm could not install the packages; the reason is above.');
}

function installPackages(forDemo) {
  const { packages } = readJson(join(ROOT, 'package-lock.json'));
  if (packagesMatch(neededPackages(packages, forDemo))) return;
  if (lstatSync(join(ROOT, 'node_modules'), { throwIfNoEntry: false })?.isSymbolicLink())
    throw new SetupError(
      'node_modules is a link, and its packages are not those of package-lock.json. npm would empty the folder that it leads to: install the packages there, or remove the link.',
    );
  say('installing npm packages');
  runNpm(['ci', forDemo ? '--omit=dev' : '--include=dev']);
  if (!forDemo) return;
  const named = DEMO_PACKAGES.map((name) => `${name}@${packages[`node_modules/${name}`].version}`);
  // --save-prod, or npm leaves out what package.json lists for development; --no-save, so that package.json stays.
  runNpm(['install', '--no-save', '--save-prod', '--omit=dev', ...named]);
}

/** Runs in the child process of `findAdapter`: requests an adapter and a device from Dawn, and prints the adapter. */
async function probe() {
  const { create } = await import('webgpu');
  const adapter = await create([]).requestAdapter();
  if (adapter) await adapter.requestDevice();
  process.stdout.write(
    `\n${JSON.stringify({ adapter: adapter ? adapter.info.description || adapter.info.device : null })}`,
  );
  process.exit(0);
}

/** Returns the description of Dawn's adapter, or null. Uses a separate process, because a driver may crash it. */
function findAdapter() {
  const child = spawnSync(process.execPath, [SELF, '--probe'], {
    cwd: ROOT,
    encoding: 'utf8',
    timeout: 120_000,
  });
  try {
    return JSON.parse(child.stdout.trim().split('\n').at(-1)).adapter;
  } catch {
    return null;
  }
}

/** Returns a key that changes if an adapter may have gone: with Node, Dawn, the installed drivers and the chosen one. */
function probeKey() {
  const modified = ICD_FOLDERS.map((path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
  const chosen = ['VK_DRIVER_FILES', 'VK_ADD_DRIVER_FILES', 'VK_ICD_FILENAMES'].map(
    (name) => process.env[name] ?? '',
  );
  const dawn = readJson(join(ROOT, 'node_modules/webgpu/package.json')).version;
  return [process.version, process.arch, dawn, ...modified, ...chosen].join('|');
}

function ensureAdapter() {
  const memory = join(ROOT, 'node_modules/.cache/diffclass-stream/adapter.json');
  try {
    if (readJson(memory).key === probeKey()) return;
  } catch {
    // There is no adapter in the cache.
  }
  let adapter = findAdapter();
  if (!adapter && process.platform === 'linux') {
    say('no WebGPU adapter found');
    const problem = installDriver(say);
    adapter = problem ? null : findAdapter();
    if (!adapter)
      say(`there is still no WebGPU adapter; ${problem ?? 'the installed Vulkan driver is not accepted'}.`);
  } else if (!adapter) {
    say('no WebGPU adapter found; this system has one built in, so its graphics driver may need an update.');
  }
  if (!adapter) return;
  say(`WebGPU adapter: ${adapter}`);
  mkdirSync(dirname(memory), { recursive: true });
  writeFileSync(memory, JSON.stringify({ key: probeKey(), adapter }));
}

function newestChange(folder) {
  let newest = 0;
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/\.m?[jt]s$/.test(entry.name)) continue;
    newest = Math.max(newest, statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs);
  }
  return newest;
}

const PROGRAM = join(ROOT, 'dist/pipeline/command/cli.js');
const DECLARATIONS = join(ROOT, 'dist/index.d.ts');

/** Whether the compiled files are newer than their sources. The demo needs no declarations. */
function isBuilt(forDemo) {
  const configs = ['package.json', 'tsconfig.json', 'tsconfig.build.json'].map(
    (name) => statSync(join(ROOT, name)).mtimeMs,
  );
  const results = forDemo ? [PROGRAM] : [PROGRAM, DECLARATIONS];
  const built = results.map((path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
  return Math.min(...built) > Math.max(newestChange(join(ROOT, 'src')), ...configs);
}

/** Compiles src. For the demo types are not checked, because the packages with the types of Node are not installed. */
function build(forDemo) {
  const unchecked = ['--noCheck', '--types', 'null', '--declaration', 'false', '--declarationMap', 'false'];
  const compiler = join(ROOT, 'node_modules/typescript/bin/tsc');
  if (!runs(process.execPath, [compiler, '-p', 'tsconfig.build.json', ...(forDemo ? unchecked : [])])) {
    throw new SetupError('the TypeScript sources do not compile; the errors are above.');
  }
  offer();
}

/**
 * Links the command so that npx finds it in this folder. npx would link it too, but keeps what it found the first time:
 * no file, or after the next compilation one that is not executable.
 */
function offer() {
  if (process.platform === 'win32') return;
  chmodSync(PROGRAM, 0o755);
  const link = join(ROOT, 'node_modules/.bin/diffclass-stream');
  rmSync(link, { force: true });
  symlinkSync(relative(dirname(link), PROGRAM), link);
}

async function main() {
  const [, , mode] = process.argv;
  if (mode === '--probe') return probe();
  if (mode === '--build') return build(false);
  const forDemo = mode === '--demo';
  checkNode();
  installPackages(forDemo);
  ensureAdapter();
  if (isBuilt(forDemo)) return offer();
  say('compiling');
  build(forDemo);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  say(error.message);
  process.exitCode = 1;
}
