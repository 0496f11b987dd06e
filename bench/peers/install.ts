// Installs a peer into a folder of its own. Nothing is added to this package.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Returns the name and version of `@scope/name@version`. */
function parts(pinned: string): readonly [name: string, version: string] {
  const at = pinned.lastIndexOf('@');
  return [pinned.slice(0, at), pinned.slice(at + 1)];
}

function isInstalled(folder: string, pinned: string): boolean {
  const [name, version] = parts(pinned);
  const file = join(folder, 'node_modules', name, 'package.json');
  return (
    existsSync(file) && (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version === version
  );
}

/**
 * Installs npm packages (`name@version`) into a folder, without their scripts, unless they are there.
 * @throws Error with npm's last line if they cannot be installed.
 */
export async function install(folder: string, packages: readonly string[]): Promise<void> {
  mkdirSync(folder, { recursive: true });
  if (packages.every((pinned) => isInstalled(folder, pinned))) return;
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock'];
  const npm = spawn('npm', ['install', ...options, ...packages], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
    shell: process.platform === 'win32', // npm is a script there
  });
  let errors = '';
  npm.stderr.on('data', (data: Buffer) => {
    errors = (errors + data.toString()).slice(-2000);
  });
  const status = await new Promise<number | null>((resolve) => {
    npm.on('error', (error) => {
      errors = error.message;
      resolve(null);
    });
    npm.on('close', resolve);
  });
  if (status === 0) return;
  const lines = errors.split('\n').filter((line) => /\S/.test(line) && !line.includes('A complete log'));
  throw new Error(`npm install ${packages.join(' ')} failed: ${lines.at(-1) ?? `status ${status}`}`);
}
