// All options of all commands. A command picks those it has by name, and adds the options of registries
// (strategies, attacks, purifications), which are known only by their entries.

import { type Command, Option as CommanderOption } from 'commander';
import type { z } from 'zod';
import { UsageError } from '../../../errors.ts';
import type { Option, OptionSet, OptionValues } from '../../option.ts';
import { ATTACKING } from './attack-options.ts';
import { COMPARING, OWN_CASE, TIMING } from './bench-options.ts';
import { DECIDING } from './deciding-options.ts';
import { MODEL } from './model-options.ts';
import { OUTPUT } from './output-options.ts';
import { PURIFYING } from './purify-options.ts';
import { RUNNING } from './running-options.ts';

/** Headings of help texts, each with its options. */
const GROUPS = {
  Model: MODEL,
  Deciding: DECIDING,
  Purifying: PURIFYING,
  Attacking: ATTACKING,
  Output: OUTPUT,
  Running: RUNNING,
  Timing: TIMING,
  'A case of your own': OWN_CASE,
  Comparing: COMPARING,
} as const satisfies Record<string, OptionSet>;

/** A heading of a help text. */
export type Group = keyof typeof GROUPS;

/** All options by the names of their values; two with the same flag belong to different commands. */
export const OPTIONS = {
  ...MODEL,
  ...DECIDING,
  ...PURIFYING,
  ...ATTACKING,
  ...OUTPUT,
  ...RUNNING,
  ...TIMING,
  ...OWN_CASE,
  ...COMPARING,
} as const;

/** The name of an option, as in `imageSize`. */
export type OptionName = keyof typeof OPTIONS;

/** The value of an option: undefined is one if there is no fallback. */
type ValueOf<O> = O extends { schema: z.ZodType; fallback: string | false }
  ? z.output<O['schema']>
  : O extends { schema: z.ZodType }
    ? z.output<O['schema']> | undefined
    : never;

/** The checked values of some options. */
export type Values<Name extends OptionName> = {
  readonly [N in Name]: ValueOf<(typeof OPTIONS)[N]>;
};

const groupOf = (name: OptionName): Group =>
  (Object.keys(GROUPS) as Group[]).find((group) => name in GROUPS[group])!;

/** Gives a command some options by their names. Those that are not given have no value in `command.opts()`. */
export function addOptions(command: Command, names: readonly OptionName[]): Command {
  for (const name of names) addOptionSet(command, groupOf(name), { [name]: OPTIONS[name] });
  return command;
}

/** Gives a command a set of options, under a heading of its help. */
export function addOptionSet(command: Command, group: Group, options: OptionSet): Command {
  for (const { flags, help, fallback, several } of Object.values(options)) {
    const option = new CommanderOption(flags, fallback ? `${help} (default: ${fallback})` : help);
    if (several)
      option.argParser((value, before: readonly string[] | undefined) => [...(before ?? []), value]);
    command.addOption(option.helpGroup(`${group}:`));
  }
  return command;
}

/**
 * Reads the values of some options, each checked by itself; `given` is `command.opts()`.
 *
 * @throws UsageError, one sentence naming the option, the text given and the values it may have.
 */
export const readOptions = <Name extends OptionName>(names: readonly Name[], given: OptionValues) =>
  readOptionSet(Object.fromEntries(names.map((name) => [name, OPTIONS[name]])), given) as Values<Name>;

/** Reads the values of a set of options, as `readOptions` does. @throws UsageError */
export const readOptionSet = (options: OptionSet, given: OptionValues): OptionValues =>
  Object.fromEntries(Object.entries(options).map(([name, option]) => [name, readOption(option, given)]));

function readOption({ flags, schema, expected, fallback }: Option, given: OptionValues): unknown {
  const option = new CommanderOption(flags);
  const text = given[option.attributeName()];
  if (text === undefined && fallback === undefined) return undefined;
  const result = schema.safeParse(text ?? fallback);
  if (!result.success) throw new UsageError(`${option.long}: expected ${expected}, got "${text}"`);
  return result.data;
}
