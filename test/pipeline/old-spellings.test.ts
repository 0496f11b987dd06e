// Tests that options of earlier versions still work, and that no help shows them.

import { describe, expect, test } from 'vitest';
import { translateOldSpellings } from '../../src/pipeline/command/old-spellings.ts';
import { SUBCOMMANDS } from '../../src/pipeline/command/subcommands/list.ts';
import { cli } from './captured-cli.ts';

describe('old spellings', () => {
  test('--json is --format json', async () => {
    const old = await cli(['info', '--json']);
    expect(old).toEqual(await cli(['info', '--format', 'json']));
    expect(JSON.parse(old.out)).toMatchObject({ name: 'fake' });
  });

  test.each([
    ['calibrate', { dry: true }, { printOnly: true }],
    ['attack', { labelsFrom: 'truth.csv', json: true }, { truth: 'truth.csv', format: 'json' }],
    ['evaluate', { labelsCsv: 'labels.csv' }, { labelsCsv: 'labels.csv' }],
    ['classify', { format: 'csv' }, { format: 'csv' }],
  ])('%s: %o', (subcommand, given, options) => {
    expect(translateOldSpellings(subcommand, given).options).toEqual(options);
  });

  test('are rejected together with the new spelling', async () => {
    const { status, err } = await cli(['info', '--json', '--format', 'text']);
    expect([status, err]).toEqual([
      2,
      'diffclass-stream: --json is the old spelling of --format json; leave one of them out\n',
    ]);
  });

  test('are logged with the new spelling at the debug level', async () => {
    const { err } = await cli(['info', '--json', '--log-level', 'debug']);
    expect(err).toContain('--json is the old spelling of --format json');
  });

  test.each(SUBCOMMANDS.map(({ name }) => name))('are not in the help of %s', async (name) => {
    const { status, out } = await cli([name, '--help']);
    expect(status).toBe(0);
    // `bench` has a --json of its own, which takes a file.
    const spellings = name === 'bench' ? 'dry|labels-from|labels-csv' : 'json|dry|labels-from|labels-csv';
    expect(out).not.toMatch(new RegExp(`--(${spellings})(?![-\\w])`));
  });
});
