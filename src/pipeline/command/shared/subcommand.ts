// What a subcommand is: its help, its options, and what it does.

import type { OptionSet } from '../../option.ts';
import type { Group, OptionName } from '../options/table.ts';
import type { Surroundings } from './surroundings.ts';

/** The options that were typed, by the names that commander gives them, as texts. */
export type Typed = Readonly<Record<string, unknown>>;

/** A subcommand; `Settings` is its checked command line. The options that all subcommands share are not part of it. */
export interface Subcommand<Settings extends object = object> {
  readonly name: string;
  /** Says in one sentence what it does, for its own help and for the list of commands. */
  readonly summary: string;
  /** Its arguments, such as `<SET>` or `[INPUT...]`, each with its help. */
  readonly operands: Readonly<Record<string, string>>;
  /** The line of usage, if it is not `[options]` and the arguments. */
  readonly usage?: string;
  /** Its options, in the order of its help. */
  readonly options: readonly OptionName[];
  /** Options that strategies, attacks or purifications declare, by their heading in its help. */
  readonly entryOptions?: Readonly<Partial<Record<Group, OptionSet>>>;
  /** The end of its help, after the options. */
  readonly help: string;
  /** Opens models on a device, and so has the option --device. */
  readonly usesDevice?: true;
  /** What its progress counts; images if absent. */
  readonly noun?: string;
  /** Checks a command line. @throws UsageError, one sentence. */
  read(operands: readonly string[], typed: Typed): Settings;
  /** Does the work, and returns the exit status. */
  run(settings: Settings, surroundings: Surroundings): Promise<number>;
}
