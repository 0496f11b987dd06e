// Installs the packages of a folder below tools/. Each of these folders has a package.json of its own, because its
// tools are large and only the script that needs them should make anyone wait for them.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

export const ROOT = dirname(import.meta.dirname);

/** Returns whether node_modules of the folder holds exactly the versions of its lockfile. */
function isInstalled(folder) {
  const installed = join(folder, 'node_modules/.package-lock.json');
  if (!existsSync(installed)) return false;
  const versionsOf = (path) =>
    Object.entries(JSON.parse(readFileSync(path, 'utf8')).packages)
      .filter(([name, { optional }]) => name !== '' && !optional)
      .map(([name, { version }]) => `${name} ${version}`)
      .sort()
      .join('\n');
  return versionsOf(installed) === versionsOf(join(folder, 'package-lock.json'));
}

/** Installs the tools of `tools/NAME` unless they are there, and returns the folder of their programs. */
export function installTools(name) {
  const folder = join(ROOT, 'tools', name);
  if (!isInstalled(folder)) {
    process.stderr.write(`installing the packages of tools/${name}\n`);
    const npm = process.env.npm_execpath;
    const [program, before] = npm && basename(npm) === 'npm-cli.js' ? [process.execPath, [npm]] : ['npm', []];
    const { status } = spawnSync(program, [...before, 'ci', '--loglevel=error'], {
      cwd: folder,
      stdio: ['ignore', 2, 2],
      shell: program === 'npm' && process.platform === 'win32',
    });
    if (status !== 0) throw new Error(`npm could not install the packages of tools/${name}`);
  }
  return join(folder, 'node_modules/.bin');
}
