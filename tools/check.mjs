// `npm run check`: every check that needs no tests to run. Prints one line per check, the output of those that fail, and
// exits with status 1 if any does. `npm run check -- NAME` runs one of them.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { installTools, ROOT } from './install.mjs';

const own = join(ROOT, 'node_modules/.bin');

/** Runs a program in the repository; returns its exit status and everything it printed. */
function run(program, args) {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: ROOT,
    encoding: 'utf8',
    shell: process.platform === 'win32',
    maxBuffer: 2 ** 28,
  });
  return { status, output: `${stdout}${stderr}${error ? `${error.message}\n` : ''}` };
}

/** Packs the package as npm would publish it, runs a program on the archive, and removes the archive. */
function runOnPackage(program, args) {
  const folder = mkdtempSync(join(tmpdir(), 'diffclass-check-'));
  try {
    const packed = run('npm', ['pack', '--ignore-scripts', '--pack-destination', folder]);
    if (packed.status !== 0) return packed;
    return run(join(own, program), [...args, join(folder, readdirSync(folder)[0])]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const CHECKS = {
  // Types of src, test, bench and tools.
  tsc: () => run(join(own, 'tsc'), ['--noEmit']),
  // Style, and promises that nobody waits for.
  biome: () => run(join(own, 'biome'), ['check', '--error-on-warnings']),
  // Files, exports and packages that nothing uses.
  knip: () => run(join(installTools('check'), 'knip'), ['--no-progress', '--treat-config-hints-as-errors']),
  // Comments of everything that is exported.
  typedoc: () => run(join(installTools('check'), 'typedoc'), ['--emit', 'none']),
  // The manifest of the package, and the types that its users see.
  publint: () => runOnPackage('publint', ['run', '--strict']),
  attw: () => runOnPackage('attw', ['--profile', 'esm-only']),
};

const chosen = process.argv.slice(2);
const unknown = chosen.find((name) => !(name in CHECKS));
if (unknown) {
  process.stderr.write(`expected a check of ${Object.keys(CHECKS).join(', ')}, got ${unknown}\n`);
  process.exit(2);
}

let failed = 0;
for (const [name, check] of Object.entries(CHECKS)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  const { status, output } = check();
  process.stdout.write(`check: ${name} ${status === 0 ? 'passed' : `failed\n${output}`}\n`);
  if (status !== 0) failed++;
}
process.exitCode = failed > 0 ? 1 : 0;
