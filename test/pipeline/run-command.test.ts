// The end of a run: everything is closed in the opposite order, whatever fails.

import { EventEmitter } from 'node:events';
import { expect, test } from 'vitest';
import { createReporter } from '../../src/pipeline/command/shared/progress.ts';
import { runCommand } from '../../src/pipeline/command/shared/run-command.ts';

const surroundings = {
  signals: new EventEmitter(),
  reporter: createReporter({ write: () => true }, 'silent'),
};

test('closes the last first, and returns 0', async () => {
  const closed: string[] = [];
  const status = await runCommand(surroundings, async ({ atEnd }) => {
    atEnd(() => closed.push('first'));
    atEnd(() => closed.push('second'));
    return { failures: 0 };
  });
  expect(closed).toEqual(['second', 'first']);
  expect(status).toBe(0);
});

test.each([
  ['of the cleanup', undefined, 'disk full'],
  ['of the run before that of the cleanup', new Error('device lost'), 'device lost'],
])('closes everything if a cleanup fails, then throws the error %s', async (_what, failure, message) => {
  const closed: string[] = [];
  const run = runCommand(surroundings, async ({ atEnd }) => {
    atEnd(() => closed.push('lock'));
    atEnd(() => Promise.reject(new Error('disk full')));
    if (failure) throw failure;
    return { failures: 0 };
  });
  await expect(run).rejects.toThrow(message);
  expect(closed).toEqual(['lock']);
});

test('counts failures only if somebody reads the results', async () => {
  expect(await runCommand(surroundings, async () => ({ failures: 2 }))).toBe(1);
  expect(await runCommand(surroundings, async () => ({ failures: 2, readerGone: true }))).toBe(0);
});
