// Makes the commands of commander, with their options and their help.

import { Command } from 'commander';
import { addOldSpellings } from './old-spellings.ts';
import { addOptionSet, addOptions, type Group, type OptionName } from './options/table.ts';
import { readManifest } from './shared/provenance.ts';
import type { Subcommand } from './shared/subcommand.ts';
import { SUBCOMMANDS } from './subcommands/list.ts';

/** Where the texts of a command itself (help, version, errors) go. */
export interface Texts {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/** Returns the options that a subcommand has in addition to its own. */
export const commonOptions = ({ usesDevice, options }: Subcommand) =>
  [
    ...(usesDevice && options.includes('model') ? (['prediction', 'vae', 'lora', 'embedding'] as const) : []),
    ...(usesDevice ? (['device', 'precision', 'tune', 'noTune'] as const) : []),
    'quiet',
    'logLevel',
  ] as const satisfies readonly OptionName[];

/** Returns the arguments of a subcommand for its line of usage, such as `SET OUT`. */
const operandsText = ({ operands }: Subcommand): string =>
  Object.keys(operands)
    .join(' ')
    .replaceAll(/[<>[\]]/g, '');

/** Lists subcommands with what they do, for the main help. */
function listOf(subcommands: readonly Subcommand[]): string {
  const rows = subcommands.map((one) => [`${one.name} ${operandsText(one)}`, one.summary] as const);
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, summary]) => `  ${name.padEnd(width)}  ${summary}\n`).join('');
}

/**
 * Makes the commander command of a subcommand. It throws `CommanderError` instead of ending the process. The first of
 * `subcommands` is the main command, whose help lists the others.
 */
export function createCommand(
  subcommand: Subcommand,
  { out, err }: Texts,
  subcommands: readonly Subcommand[] = SUBCOMMANDS,
): Command {
  const { name, summary, operands, usage, options, entryOptions = {}, help } = subcommand;
  const [main, ...others] = subcommands;
  const isMain = subcommand === main;
  const title = isMain ? 'diffclass-stream' : `diffclass-stream ${name}`;
  const command = new Command(title)
    .exitOverride()
    .showHelpAfterError(`(${title} --help lists the options)`)
    .configureOutput({ writeOut: out, writeErr: err })
    .description(summary)
    .usage(usage ?? `[options] ${operandsText(subcommand)}`);
  for (const [syntax, text] of Object.entries(operands)) command.argument(syntax, text);
  if (isMain) command.version(readManifest().version);
  addOptions(command, [...new Set<OptionName>([...options, ...commonOptions(subcommand)])]);
  for (const [group, set] of Object.entries(entryOptions)) addOptionSet(command, group as Group, set);
  addOldSpellings(command, name);
  command.addHelpText('after', help);
  if (isMain)
    command.addHelpText('after', `Other commands, each with a --help of its own:\n${listOf(others)}`);
  return command;
}
