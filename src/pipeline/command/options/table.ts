// Every option of every command, once: how it is typed, what its help says, what it may hold. A command picks
// those it has by name.

import { type Command, Option } from 'commander';
import type { z } from 'zod';
import { UsageError } from '../../../errors.ts';
import { ATTACKING } from './attack-options.ts';
import { DECIDING } from './deciding-options.ts';
import { MODEL } from './model-options.ts';
import type { Spec } from './option.ts';
import { OUTPUT } from './output-options.ts';
import { PURIFYING } from './purify-options.ts';
import { RUNNING } from './running-options.ts';

/** All options, by the names their values have here; two that are typed alike belong to different commands. */
export const OPTIONS = { ...MODEL, ...DECIDING, ...PURIFYING, ...ATTACKING, ...OUTPUT, ...RUNNING } as const;

/** The name of an option, as in `nSamples`. */
export type OptionName = keyof typeof OPTIONS;

/** The checked values of some options. */
export type Values<Name extends OptionName> = {
  readonly [N in Name]: z.output<(typeof OPTIONS)[N]['schema']>;
};

/** Gives a command some options; those that are not typed have no value. */
export function addOptions(command: Command, names: readonly OptionName[]): Command {
  for (const name of names) {
    const { flags, group, help, fallback, several }: Spec<z.ZodType> = OPTIONS[name];
    const option = new Option(flags, fallback ? `${help} (default: ${fallback})` : help);
    if (several)
      option.argParser((value, before: readonly string[] | undefined) => [...(before ?? []), value]);
    command.addOption(option.helpGroup(`${group}:`));
  }
  return command;
}

/**
 * The values of some options, each checked by itself.
 *
 * @throws UsageError, one sentence naming the option, what was got and what was wanted.
 */
export function readOptions<Name extends OptionName>(
  names: readonly Name[],
  typed: Readonly<Record<string, unknown>>,
): Values<Name> {
  const entries = names.map((name) => {
    const { flags, schema, wanted, fallback }: Spec<z.ZodType> = OPTIONS[name];
    const option = new Option(flags);
    const value = typed[option.attributeName()];
    const result = schema.safeParse(value ?? fallback);
    if (!result.success) throw new UsageError(`${option.long}: wanted ${wanted}, got "${value}"`);
    return [name, result.data];
  });
  return Object.fromEntries(entries) as Values<Name>;
}
