// Whole commands give the bytes of golden/results.json: those of version 0.2.0, and for three commands those of 0.5.0, in
// which some gradients sum in another order. Bytes depend on the device.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { COMMANDS, deviceHere, golden, prepareInputs, run } from './golden/results.ts';
import { LONG } from './properties/runs.ts';

const CLI = join(import.meta.dirname, '../src/pipeline/command/cli.ts');
const before = golden();
let inputs: string;
let device: string;

beforeAll(async () => {
  inputs = prepareInputs();
  device = LONG ? await deviceHere(CLI) : '';
});
afterAll(() => rmSync(inputs, { recursive: true }));

it.for(Object.entries(COMMANDS))('%s: the same bytes', async ([name, command], context) => {
  if (!LONG) return context.skip('takes minutes: npm run test:all -- results');
  if (device !== before.device) return context.skip(`the bytes were written on ${before.device}`);
  expect(await run(CLI, command, inputs)).toEqual(before.results[name]);
});
