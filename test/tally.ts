// Closes a run of the suite with what was skipped and why, and one line of counts that machines can read.

import type { Reporter, TestCase, TestModule } from 'vitest/node';

interface Tally {
  passed: number;
  failed: number;
  /** Names of skipped tests by the reason that their note gives. */
  readonly skipped: Map<string, string[]>;
}

function add(tally: Tally, test: TestCase): void {
  const result = test.result();
  if (result.state === 'passed') tally.passed++;
  else if (result.state === 'failed') tally.failed++;
  else {
    const reason = (result.state === 'skipped' && result.note) || 'no reason given';
    tally.skipped.set(reason, [...(tally.skipped.get(reason) ?? []), test.fullName]);
  }
}

/**
 * Prints the skipped tests by reason (the note of `context.skip(note)`) and last `N passed, N failed, N skipped`.
 * A file or a suite's hook that fails, and an error outside of any test, count as failed.
 */
export class TallyReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const tally: Tally = { passed: 0, failed: errors.length, skipped: new Map() };
    for (const module of modules) {
      if (module.errors().length > 0) tally.failed++;
      for (const suite of module.children.allSuites()) if (suite.errors().length > 0) tally.failed++;
      for (const test of module.children.allTests()) add(tally, test);
    }
    let skipped = 0;
    for (const [reason, names] of tally.skipped) {
      skipped += names.length;
      process.stdout.write(`skipped ${names.length}: ${reason}\n`);
      for (const name of names.slice(0, 5)) process.stdout.write(`  ${name}\n`);
      if (names.length > 5) process.stdout.write(`  and ${names.length - 5} more\n`);
    }
    // After everything that the other reporters print.
    process.once('exit', () => {
      process.stdout.write(`${tally.passed} passed, ${tally.failed} failed, ${skipped} skipped\n`);
    });
  }
}
