// Installs a software Vulkan driver on a machine without a WebGPU adapter, as setup-driver.mjs plans it for the
// distribution. It is plain JavaScript without dependencies, because tools/setup.mjs runs it before anything is installed;
// `diffclass-stream doctor --fix` runs it from the installed package.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { driverCommands, parseOsRelease, planDriver } from './setup-driver.mjs';

const ADDED_SOURCE = '/etc/apt/sources.list.d/diffclass-stream-backports.sources';

/** @param {string} path */
function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function aptSources() {
  const folder = '/etc/apt/sources.list.d';
  const names = existsSync(folder)
    ? readdirSync(folder).filter((name) => /\.(list|sources)$/.test(name))
    : [];
  const paths = ['/etc/apt/sources.list', ...names.sort().map((name) => join(folder, name))];
  return paths.map((path) => ({ name: basename(path), text: readIfThere(path) }));
}

/** Plans, from this machine's own files, how it gets a software Vulkan driver. */
export const driverPlan = () => planDriver(parseOsRelease(readIfThere('/etc/os-release')), aptSources());

/**
 * Runs a command. Shows its output if it fails or, if `live`, at once. Returns whether it succeeded.
 * @param {readonly string[]} command
 * @param {boolean} live
 * @param {string} [input]
 */
function runs([program = '', ...args], live, input) {
  const result = spawnSync(program, args, {
    ...(input === undefined ? {} : { input }),
    stdio: [input === undefined ? 'ignore' : 'pipe', live ? 2 : 'pipe', live ? 2 : 'pipe'],
    encoding: 'utf8',
  });
  if (!live && result.status !== 0) process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? ''}`);
  return result.status === 0;
}

/**
 * Installs a software Vulkan driver with apt, as root or through sudo without a password.
 * @param {(text: string) => void} say called with a sentence before every step
 * @param {{ readonly live?: boolean }} [options] `live`: show the output of apt at once, and not only if it fails
 * @returns {string | undefined} what to do by hand, if the driver cannot be installed
 */
export function installDriver(say, { live = true } = {}) {
  const plan = driverPlan();
  if ('sentence' in plan) return plan.sentence;
  const root = process.getuid?.() === 0;
  const from = plan.release ? ` from ${plan.release}` : '';
  const byHand = `install ${plan.packages.join(' and ')}${from} with apt as an administrator`;
  if (spawnSync('apt-get', ['--version']).status !== 0) return byHand;
  if (!root && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status !== 0) return byHand;
  say(`installing a software Vulkan driver: ${plan.packages.join(' and ')}${from}`);
  if (plan.addSource) {
    say(`adding ${plan.release} to apt's sources (${ADDED_SOURCE})`);
    const write = ['tee', ADDED_SOURCE];
    if (!runs(root ? write : ['sudo', '-n', ...write], false, plan.addSource)) return byHand;
  }
  const { update, install } = driverCommands(plan, root ? 'root' : 'sudo');
  // The status of the update is ignored: a broken list of another vendor makes it fail, but not the installation.
  runs(update, live);
  return runs(install, live) ? undefined : byHand;
}
