// Spellings of options that earlier versions had. They still work, but the help shows only their successors.

import { type Command, Option } from 'commander';
import { UsageError } from '../../errors.ts';
import type { OptionValues } from '../option.ts';

/** An earlier spelling of an option. */
interface OldSpelling {
  /** As commander reads it. */
  readonly flags: string;
  /** What to type instead. */
  readonly successor: string;
  /** The subcommands that had it. */
  readonly subcommands: readonly string[];
  /** Returns what the successor would have set, given the value of the option. */
  readonly translate: (value: unknown) => OptionValues;
}

const OLD_SPELLINGS: readonly OldSpelling[] = [
  {
    flags: '--json',
    successor: '--format json',
    subcommands: ['info', 'doctor', 'calibrate', 'optimal', 'attack', 'evaluate'],
    translate: () => ({ format: 'json' }),
  },
  {
    flags: '--dry',
    successor: '--print-only',
    subcommands: ['calibrate'],
    translate: () => ({ printOnly: true }),
  },
  {
    flags: '--labels-from <folders|file>',
    successor: '--truth',
    subcommands: ['attack'],
    translate: (truth) => ({ truth }),
  },
  {
    // Not the same: the paths in this file are relative to the set, not to the file.
    flags: '--labels-csv <file>',
    successor: '--truth FILE',
    subcommands: ['evaluate'],
    translate: (labelsCsv) => ({ labelsCsv }),
  },
];

const spellingsOf = (subcommand: string) =>
  OLD_SPELLINGS.filter(({ subcommands }) => subcommands.includes(subcommand)).map(
    ({ flags, ...spelling }) => ({ ...spelling, option: new Option(flags).hideHelp() }),
  );

/** Makes a command accept the old spellings of its options. */
export function addOldSpellings(command: Command, subcommand: string): void {
  for (const { option } of spellingsOf(subcommand)) command.addOption(option);
}

/**
 * Translates old spellings in `given` (`command.opts()`). Returns the options as if their successors had been typed, and
 * a hint for each old spelling.
 *
 * @throws UsageError if an option is given in both spellings.
 */
export function translateOldSpellings(
  subcommand: string,
  given: OptionValues,
): { readonly options: OptionValues; readonly hints: readonly string[] } {
  const options = { ...given };
  const hints: string[] = [];
  for (const { option, successor, translate } of spellingsOf(subcommand)) {
    const name = option.attributeName();
    if (!(name in given)) continue;
    delete options[name];
    const translated = translate(given[name]);
    if (Object.keys(translated).some((key) => key in options))
      throw new UsageError(`${option.long} is the old spelling of ${successor}; leave one of them out`);
    Object.assign(options, translated);
    hints.push(`${option.long} is the old spelling of ${successor}`);
  }
  return { options, hints };
}
