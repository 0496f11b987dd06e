// What the command line knows of an attack.

import type { Entry, OptionValues } from '../option.ts';
import type { Attack } from './attack.ts';

/** An attack by name. */
export interface AttackEntry<Values = OptionValues, Name extends string = string>
  extends Entry<Values, Name> {
  /** What counts if nothing is given: AutoAttack's settings. */
  readonly defaults: { readonly steps: number; readonly restarts: number };
  /** The fewest classes that its loss can compare. */
  readonly leastClasses: number;
  /** If false, each of its steps is one query for logits. */
  readonly usesGradients: boolean;
  /** The fewest steps that are any use if the same number is given for several attacks. */
  readonly leastSharedSteps?: number;
  /** Makes an attack whose runs have this many steps. */
  make(choice: { readonly steps: number } & Values): Attack;
}
