// What the command line knows of a strategy.

import type { Entry, OptionValues } from '../option.ts';
import type { Strategy } from './trial.ts';

/** A strategy that was chosen by name, with the values of its options. */
export interface ChosenStrategy {
  readonly strategy: Strategy;
  /** The strategy with its options, as the record of a run holds it. */
  readonly record: string;
  /** How many levels the grid has if none is given; without it the model's own grid counts. */
  readonly gridLength?: number;
}

/** A strategy by name. */
export interface StrategyEntry<Values = OptionValues> extends Entry<Values> {
  /**
   * Why energies of two images cannot be compared under this strategy, for a message; absent if they can,
   * since all candidates of every image are evaluated on the same levels.
   */
  readonly energyRefusal?: string;
  /** Makes the strategy. @throws UsageError if the values do not fit together. */
  choose(values: Values): ChosenStrategy;
}
