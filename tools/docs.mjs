// `npm run docs`: writes the reference of every export to docs/api.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { installTools, ROOT } from './install.mjs';

const { status } = spawnSync(join(installTools('check'), 'typedoc'), process.argv.slice(2), {
  cwd: ROOT,
  stdio: 'inherit',
  shell: process.platform === 'win32',
});
process.exitCode = status ?? 1;
