// Tests how the progress of compiling shaders is shown, with a fake clock.

import { describe, expect, test } from 'vitest';
import type { LogLevel } from '../../src/pipeline/command/options/output-options.ts';
import { createReporter } from '../../src/pipeline/command/shared/progress.ts';

/** Returns what a reporter writes about pipelines that take `milliseconds` each. */
function shown(milliseconds: number, { isTTY = false, level = 'info' as LogLevel, total = 30 } = {}) {
  const texts: string[] = [];
  let time = 0;
  const output = { write: (text: string) => texts.push(text), isTTY, columns: 80 };
  const reporter = createReporter(output, level, { now: () => time });
  for (let done = 0; done <= total; done++) {
    reporter.compiling({ done, total });
    time += milliseconds;
  }
  return { texts, reporter };
}

describe('compiling shaders', () => {
  test('prints nothing if it takes less than a second', () => {
    expect(shown(20).texts).toEqual([]);
    expect(shown(20, { isTTY: true }).texts).toEqual([]);
  });

  test('outside a terminal: prints a line after one second, then every five seconds', () => {
    expect(shown(600).texts).toEqual(
      [2, 11, 20, 29].map(
        (done) => `diffclass-stream: compiling shaders, ${done} of 30 (kept for the next run)\n`,
      ),
    );
  });

  test('on a terminal: updates one line, and erases it at the end', () => {
    const { texts } = shown(600, { isTTY: true });
    for (const text of texts.slice(0, -1))
      expect(text).toSatisfy(
        (line: string) => line.startsWith('\rcompiling shaders, ') && line.endsWith('\x1b[K'),
      );
    expect(texts).toHaveLength(29);
    expect(texts.at(-1)).toBe('\r\x1b[K');
  });

  test('starts a log entry on its own line', () => {
    const texts: string[] = [];
    let time = 0;
    const reporter = createReporter({ write: (text) => texts.push(text), isTTY: true }, 'info', {
      now: () => time,
    });
    reporter.compiling({ done: 0, total: 2 });
    time = 2000;
    reporter.compiling({ done: 1, total: 2 });
    reporter.log('warn', 'something');
    expect(texts.slice(-2)).toEqual(['\r\x1b[K', 'diffclass-stream: something\n']);
  });

  test('the measurement of kernels is shown likewise, with the option that skips it', () => {
    const texts: string[] = [];
    let time = 0;
    const reporter = createReporter({ write: (text) => texts.push(text), isTTY: false }, 'info', {
      now: () => time,
    });
    for (let done = 0; done <= 4; done++) {
      reporter.tuning({ done, total: 4 });
      time += 600;
    }
    expect(texts).toEqual([
      'diffclass-stream: measuring kernels, 2 of 4 (kept for the next run; --no-tune skips this)\n',
    ]);
  });

  test('prints nothing with --quiet', () => {
    expect(shown(600, { level: 'error' }).texts).toEqual([]);
  });
});
