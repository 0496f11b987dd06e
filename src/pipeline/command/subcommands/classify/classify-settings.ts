// The settings of `classify`: its command line, checked before anything is opened.

import { UsageError } from '../../../../errors.ts';
import { chooseStrategy, STRATEGIES } from '../../../deciding/strategies.ts';
import type { ChosenStrategy } from '../../../deciding/strategy-entry.ts';
import { entryOf, namesOf, optionsOf } from '../../../option.ts';
import { withPreset } from '../../options/presets.ts';
import { type OptionName, readOptionSet, readOptions, type Values } from '../../options/table.ts';
import { inputsOf } from '../../shared/inputs.ts';
import { checkGrid, checkResume } from '../../shared/option-checks.ts';
import { CLASSIFY_PURIFYING, type PurifyingSettings, purifyingOf } from '../../shared/purify-settings.ts';
import { formatOfFile } from '../../shared/result-lines.ts';

/** The options of `classify`, in the order of its help. */
export const CLASSIFY = [
  'model',
  'labels',
  'template',
  'prompts',
  'imageSize',
  'preset',
  'strategy',
  'budget',
  'timesteps',
  'sigmas',
  'loss',
  'weighting',
  'seed',
  'noise',
  ...CLASSIFY_PURIFYING,
  'output',
  'format',
  'order',
  'timings',
  'topK',
  'energy',
  'errors',
  'resume',
  'dryRun',
  'null',
  'batch',
  'concurrency',
] as const satisfies readonly OptionName[];

/** A checked command line. */
export interface Settings extends Omit<Values<(typeof CLASSIFY)[number]>, 'null' | 'strategy'> {
  readonly deciding: ChosenStrategy;
  readonly inputs: readonly string[];
  /** Paths on standard input end in NUL. */
  readonly nul: boolean;
  /** What purifies the images first, if anything does. */
  readonly purifying: PurifyingSettings | undefined;
}

/**
 * Checks the options of a command line, each by itself and in combination; `typed` holds only those given.
 *
 * @throws UsageError, one sentence that names the option, what was expected and what was given.
 */
export function readSettings(inputs: readonly string[], typed: Readonly<Record<string, unknown>>): Settings {
  const given = withPreset(typed);
  const { null: nul, strategy, ...values } = readOptions(CLASSIFY, given);
  const settings = {
    ...values,
    deciding: chooseStrategy(strategy, readOptionSet(optionsOf(STRATEGIES), given)),
    nul,
    purifying: purifyingOf(values, given),
    inputs: inputsOf(inputs, nul),
  };
  checkTogether(settings);
  const { energyRefusal } = entryOf(STRATEGIES, strategy);
  if (settings.energy && energyRefusal !== undefined) {
    const others = STRATEGIES.filter((other) => other.energyRefusal === undefined);
    throw new UsageError(`--energy needs --strategy ${namesOf(others)}: ${energyRefusal}`);
  }
  return settings;
}

function checkTogether(settings: Settings): void {
  const { output } = settings;
  const refuse = (message: string) => {
    throw new UsageError(message);
  };
  if (settings.prompts && settings.labels) refuse('--prompts and --labels exclude each other');
  if (settings.template && !settings.labels) refuse('--template needs --labels to fill in');
  checkGrid(settings);
  checkResume(settings);
  if (settings.resume && (settings.format ?? formatOfFile(output)) === 'text')
    refuse('--resume reads JSON lines or CSV; expected --format jsonl or csv, got text');
  if (settings.errors !== undefined && settings.errors === output)
    refuse('--errors and --output name the same file; expected two files');
}
