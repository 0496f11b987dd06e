// The purifications by name. A new one is a file of its own, with its steps and its entry, and a name in this list.

import { UsageError } from '../../errors.ts';
import type { Level } from '../../graph/model.ts';
import type { ModelSummary } from '../../graph/model-summary.ts';
import { checkOwners, entryOf, type OptionValues } from '../option.ts';
import type { PurificationStep } from './chain.ts';
import { type DiffpureOptions, diffpureEntry } from './diffpure.ts';
import {
  type LikelihoodOptions,
  lmAdamEntry,
  lmMomentumEntry,
  lmResidualEntry,
} from './likelihood-methods.ts';
import type { CommonOptions, PurificationEntry, PurifyingModel, Title } from './purification-entry.ts';

const LIST = [lmAdamEntry, lmMomentumEntry, lmResidualEntry, diffpureEntry] as const;

/** The name of a purification; its entry says what it does. */
export type Method = (typeof LIST)[number]['name'];

/** All purifications. */
export const PURIFICATIONS: readonly PurificationEntry<OptionValues, Method>[] = LIST;

/** The names of all purifications. */
export const METHODS: readonly Method[] = LIST.map(({ name }) => name);

/** Options of a purification; everything but the method has a default. */
export interface PurifyingOptions extends CommonOptions, LikelihoodOptions, DiffpureOptions {
  readonly method: Method;
}

/** Options for a list of purifications: the name of one, and the values of its options. */
type OptionsOfAny = CommonOptions & { readonly method: string };

/**
 * Checks that options fit together; `title` says how messages name an option.
 *
 * @throws UsageError, one sentence.
 */
export function checkPurifying(
  options: OptionsOfAny,
  title: Title = (option) => option,
  entries: readonly PurificationEntry[] = PURIFICATIONS,
): void {
  const { method, steps, eps, norm = 'linf', sigmas } = options;
  const entry = entryOf(entries, method);
  if (eps !== undefined && norm === 'linf' && eps > 1)
    throw new UsageError(
      `${title('eps')}: expected a linf radius of at most 1, for pixels in [0, 1], such as 8/255; got ${eps}`,
    );
  if (sigmas !== undefined && steps !== undefined && sigmas.length < steps)
    throw new UsageError(
      `${title('sigmas')}: expected a sigma for each of ${steps} steps, got ${sigmas.length}`,
    );
  checkOwners(entries, [entry], { ...options }, '', title);
  entry.check?.({ ...options }, title);
}

/**
 * Returns the levels that a model is opened with for a purification: those of its steps.
 *
 * @throws UsageError if options do not fit together, or the model does not reach their levels.
 */
export const purificationLevels =
  (options: PurifyingOptions) =>
  (model: ModelSummary): Level[] => {
    checkPurifying(options);
    return entryOf(PURIFICATIONS, options.method).levels({ ...options }, model);
  };

/**
 * Returns the chain of steps that purifies an image, the last of which clips it. It is the same for every image: the
 * sigma and the noise of a step are those of its number (of the seed, or of the lists), whatever batch the image is in.
 *
 * @throws UsageError if options do not fit together; ModelError if fewer noises are given than it takes.
 */
export function purificationSteps(options: PurifyingOptions, model: PurifyingModel): PurificationStep[] {
  checkPurifying(options);
  return entryOf(PURIFICATIONS, options.method).steps({ ...options }, model);
}
