// `npm run mutate`: changes the source in small ways, one at a time, and counts the changes that no test notices. Takes
// hours for everything; `npm run mutate -- src/pipeline/deciding/trial.ts` mutates some files. Fails below a score of 85 %.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { installTools, ROOT } from './install.mjs';

const files = process.argv.slice(2);
const program = join(installTools('mutate'), 'stryker');
const config = join('tools', 'mutate', 'stryker.config.json');
const args = ['run', config, ...(files.length > 0 ? ['--mutate', files.join(',')] : [])];
const { status } = spawnSync(program, args, {
  cwd: ROOT,
  stdio: 'inherit',
  shell: process.platform === 'win32',
});

let report;
try {
  report = JSON.parse(readFileSync(join(ROOT, 'coverage/mutation.json'), 'utf8'));
} catch {
  process.stdout.write('0 passed, 1 failed, 0 skipped\n');
  process.exit(1);
}
const counts = { passed: 0, failed: 0, skipped: 0 };
for (const { mutants } of Object.values(report.files))
  for (const { status: fate } of mutants) {
    if (fate === 'Killed' || fate === 'Timeout') counts.passed++;
    else if (fate === 'Survived' || fate === 'NoCoverage') counts.failed++;
    else counts.skipped++;
  }
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
process.exitCode = status ?? 1;
