// The attacks by name. A new one is a file of its own, with its function and its entry, and a name in this list.

import { UsageError } from '../../errors.ts';
import { entryOf, type OptionValues } from '../option.ts';
import { apgdCeEntry, apgdCeTargetedEntry, apgdDlrEntry, apgdTargetedEntry } from './apgd.ts';
import type { Attack } from './attack.ts';
import type { AttackEntry } from './attack-entry.ts';
import { pgdEntry } from './pgd.ts';
import { squareEntry } from './square.ts';

const LIST = [
  pgdEntry,
  apgdCeEntry,
  apgdDlrEntry,
  apgdTargetedEntry,
  apgdCeTargetedEntry,
  squareEntry,
] as const;

/** The name of an attack. */
export type AttackName = (typeof LIST)[number]['name'];

/** All attacks. */
export const ATTACK_ENTRIES: readonly AttackEntry<OptionValues, AttackName>[] = LIST;

/** The names of all attacks. `-t` are targeted: each restart aims at another class, the most likely ones first. */
export const ATTACKS: readonly AttackName[] = LIST.map(({ name }) => name);

/** Settings of a run of an attack. */
export interface AttackChoice {
  /** Steps of a run; for `square`, queries. */
  readonly steps: number;
  /** `pgd`: see `PgdOptions`. */
  readonly stepSize?: number | undefined;
}

/**
 * Makes an attack by name, for a classifier with this many classes.
 *
 * @throws UsageError if its loss compares more classes than there are.
 */
export function attackOf(name: AttackName, choice: AttackChoice, classes: number): Attack {
  const { leastClasses, make } = entryOf(ATTACK_ENTRIES, name);
  if (classes < leastClasses)
    throw new UsageError(`--attack ${name} compares ${leastClasses} classes, the model has ${classes}`);
  return make({ ...choice });
}
