// What an option of the command line is. Strategies, attacks and purifications declare their own options in
// these terms, next to their code, and the command line derives its options, help and checks from them.

import { UsageError } from '../errors.ts';

/**
 * Turns the text of an option into a value: a zod schema, as far as options need it. It is declared here
 * because the package's public declarations must not reach zod, whose types do not compile everywhere.
 */
export interface ValueSchema<T> {
  safeParse(text: unknown): { readonly success: true; readonly data: T } | { readonly success: false };
}

/** An option. Without a `fallback` its value is undefined if it is not given. */
export interface Option<T = unknown> {
  /** As commander reads it, such as `--budget <n>`. */
  readonly flags: string;
  readonly help: string;
  readonly schema: ValueSchema<T>;
  /** Describes the values that the schema accepts, for messages. */
  readonly expected: string;
  /** The text that counts if the option is not given. */
  readonly fallback?: string | false;
  /** The option may be given several times. */
  readonly several?: true;
}

/** Returns an option's flag as messages name it: `--n-samples` of `--n-samples <list>`. */
export const longFlag = ({ flags }: Pick<Option, 'flags'>): string => /--[a-z-]+/.exec(flags)![0];

/** Options by the names of their values. */
export type OptionSet = Readonly<Record<string, Option>>;

/** The options that these values are read from. */
export type OptionsFor<Values> = {
  readonly [Name in keyof Values]-?: Option<NonNullable<Values[Name]>>;
};

/** Values of options by their names; undefined for those that were not given. */
export type OptionValues = Readonly<Record<string, unknown>>;

/** An entry of a registry, as far as the command line needs it. An option that was not given has the value undefined. */
export interface Entry<Values = OptionValues, Name extends string = string> {
  readonly name: Name;
  /** Says in a few words what it does, for help texts. */
  readonly summary: string;
  /** Its own options. Entries may share an option. */
  readonly options: OptionsFor<Values>;
}

/** Returns the options of all entries. */
export const optionsOf = (entries: readonly Entry[]): OptionSet =>
  Object.assign({}, ...entries.map(({ options }) => options));

/** Returns the entry of that name. @throws UsageError if there is none. */
export function entryOf<E extends Entry>(entries: readonly E[], name: string): E {
  const found = entries.find((entry) => entry.name === name);
  if (found) return found;
  throw new UsageError(`expected ${namesOf(entries)}, got "${name}"`);
}

/** Lists the names of entries for a sentence: "a, b or c". */
export const namesOf = (entries: readonly Pick<Entry, 'name'>[]): string =>
  entries
    .map(({ name }) => name)
    .join(', ')
    .replace(/, ([^,]*)$/, ' or $1');

/**
 * Checks that every option with a value belongs to one of the `chosen` entries. In messages `kind` says what the owners
 * of an option are, and `title` names an option, by default by its flag.
 *
 * @throws UsageError naming the entries that the option belongs to.
 */
export function checkOwners(
  entries: readonly Entry[],
  chosen: readonly Entry[],
  values: OptionValues,
  kind: string,
  title?: (option: string) => string,
): void {
  for (const [name, option] of Object.entries(optionsOf(entries))) {
    if (values[name] === undefined || chosen.some(({ options }) => name in options)) continue;
    const owners = entries.filter(({ options }) => name in options);
    throw new UsageError(`${title?.(name) ?? longFlag(option)} belongs to ${kind}${namesOf(owners)}`);
  }
}
