// Tests that the command line supports a new strategy, attack or purification after one entry in a list.

import { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { UsageError } from '../../src/errors.ts';
import { attackImage } from '../../src/pipeline/attacking/attack.ts';
import type { AttackEntry } from '../../src/pipeline/attacking/attack-entry.ts';
import { ATTACK_ENTRIES } from '../../src/pipeline/attacking/attacks.ts';
import { purificationOptions } from '../../src/pipeline/command/options/purify-options.ts';
import { addOptionSet, readOptionSet } from '../../src/pipeline/command/options/table.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { chooseStrategy, STRATEGIES } from '../../src/pipeline/deciding/strategies.ts';
import type { StrategyEntry } from '../../src/pipeline/deciding/strategy-entry.ts';
import { checkOwners, entryOf, namesOf, type OptionSet, optionsOf } from '../../src/pipeline/option.ts';
import { type Denoising, statesOf } from '../../src/pipeline/purifying/chain.ts';
import { checkPurifying, PURIFICATIONS } from '../../src/pipeline/purifying/methods.ts';
import { seededNoise } from '../../src/pipeline/purifying/noise.ts';
import { COMMON_OPTIONS, type PurificationEntry } from '../../src/pipeline/purifying/purification-entry.ts';
import { linearClassifier, weightAt } from './attacking/fake-classifiers.ts';
import { fakeCandidates, fakeLevels, runTrial } from './fake-model.ts';

/** Parses a command line with the options of entries; returns their values, and the help. */
function parsed(options: OptionSet, ...argv: readonly string[]) {
  const command = addOptionSet(new Command().exitOverride(), 'Deciding', options);
  command.parse(argv, { from: 'user' });
  return { values: readOptionSet(options, command.opts()), help: command.helpInformation() };
}

const number = { schema: z.string().transform(Number), expected: 'a number' };

/** Visits the first `levels` of the grid with every candidate. */
const prefixEntry: StrategyEntry<{ readonly prefix?: number | undefined }> = {
  name: 'prefix',
  summary: 'never, but on fewer levels',
  options: { prefix: { ...number, flags: '--prefix <n>', help: 'prefix: levels' } },
  choose: ({ prefix = 1 }) => ({
    strategy: (info) => all()({ ...info, levels: info.levels.slice(0, prefix) }),
    record: `prefix ${prefix}`,
  }),
};

test('a strategy', () => {
  const strategies = [...STRATEGIES, prefixEntry];
  const { values, help } = parsed(optionsOf(strategies), '--prefix', '3');
  expect(help).toMatch(/--prefix <n> +prefix: levels/);
  const { strategy, record } = chooseStrategy('prefix', values, strategies);
  expect(record).toBe('prefix 3');
  const trial = runTrial(strategy, { candidates: fakeCandidates(4), levels: fakeLevels(10) }, (c) => c);
  expect(trial).toMatchObject({ visited: [0, 1, 2], evaluations: 12, decided: true });
  expect(() => chooseStrategy('staged', values, strategies)).toThrow(
    new UsageError('--prefix belongs to --strategy prefix'),
  );
  expect(() => chooseStrategy('best', {}, strategies)).toThrow('expected sequential, staged, all or prefix');
});

/** Moves every pixel up by `shift`. */
const shiftEntry: AttackEntry<{ readonly shift?: number | undefined }> = {
  name: 'shift',
  summary: 'moves every pixel by as much',
  options: { shift: { ...number, flags: '--shift <size>', help: 'shift: size' } },
  defaults: { steps: 1, restarts: 1 },
  leastClasses: 2,
  usesGradients: false,
  make:
    ({ shift = 0 }) =>
    async ({ asked, centre, keep }) => {
      const x = centre.map((v) => v + shift);
      const { judged } = await asked.logits(x);
      await keep(x, 1, judged);
    },
};

test('an attack', async () => {
  const attacks = [...ATTACK_ENTRIES, shiftEntry];
  const { values, help } = parsed(optionsOf(attacks), '--shift', '0.25');
  expect(help).toMatch(/--shift <size> +shift: size/);
  expect(namesOf(attacks)).toContain('square or shift');
  expect(() => checkOwners(attacks, [ATTACK_ENTRIES[0]!], values, 'the attack ')).toThrow(
    '--shift belongs to the attack shift',
  );
  const { make, defaults } = entryOf(attacks, 'shift');
  // Moving the only pixel up helps the class of the larger weight, so the other one loses.
  const label = weightAt(0, 0) < weightAt(1, 0) ? 0 : 1;
  const { x } = await attackImage(
    linearClassifier(2, 1),
    { x: Float64Array.of(0.5), label, key: 'image' },
    {
      attack: make({ steps: defaults.steps, ...values }),
      ...{ name: 'shift', restarts: 1, seed: 0, norm: 'linf', eps: 1, eot: 1, randomness: 'known' },
    },
  );
  expect([...x]).toEqual([0.75]);
});

/** Shrinks an image towards grey. */
const shrinkEntry: PurificationEntry<{ readonly factor?: number | undefined }> = {
  name: 'shrink',
  summary: 'shrinks an image towards grey',
  options: { ...COMMON_OPTIONS, factor: { ...number, flags: '--factor <f>', help: 'shrink: factor' } },
  noiseOnDevice: false,
  levels: () => [{ t: 0, weight: 1 }],
  steps: ({ factor = 0.5 }) => [
    {
      forward: async (_, { x }) => ({ x: x.map((value) => factor * value) }),
      pullBack: async (_, __, { x }) => ({ x: x!.map((value) => factor * value) }),
    },
  ],
};

describe('a purification', () => {
  const purifications = [...PURIFICATIONS, shrinkEntry];

  test.each(['--', '--purify-'] as const)('under %s', async (prefix) => {
    const options = purificationOptions(prefix, purifications);
    const { values, help } = parsed(options, `${prefix}factor`, '0.25', `${prefix}steps`, '1');
    expect(help).toContain(`${prefix}factor <f>`);
    expect(values).toMatchObject({ factor: 0.25, steps: 1, tStar: undefined });
    checkPurifying({ method: 'shrink', ...values }, undefined, purifications);
    expect(() => checkPurifying({ method: 'diffpure', ...values }, undefined, purifications)).toThrow(
      'factor belongs to shrink',
    );
    const model = { name: 'fake', mixes: [], noise: seededNoise(0, 2) };
    const steps = entryOf(purifications, 'shrink').steps(values, model);
    const states = await statesOf({} as Denoising, steps, Float32Array.of(1, -0.5));
    expect([...states.at(-1)!.x]).toEqual([0.25, -0.125]);
  });
});
