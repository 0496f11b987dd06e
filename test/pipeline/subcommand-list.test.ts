// A subcommand of the tests' own: its own file and its entry in the list are all that the command line needs.

import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { main } from '../../src/pipeline/command/main.ts';
import { readOptions } from '../../src/pipeline/command/options/table.ts';
import type { Subcommand } from '../../src/pipeline/command/shared/subcommand.ts';
import { writeReport } from '../../src/pipeline/command/shared/writers.ts';
import { SUBCOMMANDS } from '../../src/pipeline/command/subcommands/list.ts';
import { fakeDescribe, fakeFolder } from './fake-folder.ts';

const OPTIONS = ['seed', 'reportFormat'] as const;

interface TallySettings {
  readonly set: string;
  readonly seed: number;
  readonly reportFormat: 'text' | 'json';
}

const tally: Subcommand<TallySettings> = {
  name: 'tally',
  summary: 'Repeat what was asked for.',
  operands: { '<SET>': 'any text' },
  options: OPTIONS,
  help: '\nExample:\n  diffclass-stream tally photos/\n',
  read: ([set = ''], typed) => ({ set, ...readOptions(OPTIONS, typed) }),
  async run({ set, seed, reportFormat }, { stdout, reporter }) {
    reporter.log('info', 'tallying');
    await writeReport(stdout, reportFormat, { set, seed }, `${set} with seed ${seed}\n`);
    return 0;
  },
};

/** Runs the command line with the toy after all other subcommands. */
async function cli(...argv: readonly string[]) {
  const stdout = new PassThrough();
  const errors: string[] = [];
  const status = await main(argv, {
    ...{ openModel: fakeFolder(), describe: fakeDescribe(), stdout },
    stderr: { write: (message) => errors.push(message) },
    subcommands: [...SUBCOMMANDS, tally],
  });
  stdout.end();
  return { status, out: await text(stdout), err: errors.join('') };
}

describe('a subcommand in the list', () => {
  test('runs with its checked settings', async () => {
    const log = 'diffclass-stream: tallying\n';
    expect(await cli('tally', 'photos/')).toEqual({ status: 0, out: 'photos/ with seed 0\n', err: log });
    const json = await cli('tally', 'photos/', '--seed', '7', '--format', 'json', '--quiet');
    expect(json).toEqual({ status: 0, out: '{"set":"photos/","seed":7}\n', err: '' });
  });

  test('has a help with its options and the common ones', async () => {
    const { status, out } = await cli('tally', '--help');
    expect(status).toBe(0);
    expect(out).toContain('Usage: diffclass-stream tally [options] SET\n\nRepeat what was asked for.\n');
    expect(out).toMatch(/Arguments:\n {2}SET +any text\n/);
    expect(out).toMatch(/Deciding:\n {2}--seed <n> +seed of the noise \(default: 0\)\n/);
    expect(out).toMatch(/--format <name> +text, or json/);
    expect(out).toMatch(/-q, --quiet/);
    expect(out).not.toContain('--device');
    expect(out).toContain('\nExample:\n  diffclass-stream tally photos/\n');
  });

  test('is listed by the main help, and suggested for a name that is almost its own', async () => {
    expect((await cli('--help')).out).toMatch(/\n {2}tally SET +Repeat what was asked for\.\n/);
    const { status, err } = await cli('taly', 'photos/');
    expect([status, err]).toEqual([
      2,
      'diffclass-stream: "taly" is neither a command nor a file; did you mean tally?\n',
    ]);
  });

  test('refuses wrong values and missing arguments', async () => {
    const wrong = await cli('tally', 'photos/', '--seed', 'x');
    expect(wrong.status).toBe(2);
    expect(wrong.err).toBe('diffclass-stream: --seed: expected an integer from 0 to 4294967295, got "x"\n');
    const missing = await cli('tally');
    expect(missing.status).toBe(2);
    expect(missing.err).toContain("missing required argument 'SET'");
  });
});
