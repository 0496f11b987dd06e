// What `classify` is asked for, checked: from the texts of options to values, before anything is opened.

import { UsageError } from '../../../../errors.ts';
import { withPreset } from '../../options/presets.ts';
import { type OptionName, readOptions, type Values } from '../../options/table.ts';
import { formatOfFile } from '../../shared/format.ts';
import { checkInputs } from '../../shared/inputs.ts';
import { checkShared } from '../../shared/option-checks.ts';
import { CLASSIFY_PURIFYING, type PurifyingSettings, purifyingOf } from '../../shared/purifying.ts';

/** The options of `classify`, in the order of its help. */
export const CLASSIFY = [
  'model',
  'labels',
  'template',
  'prompts',
  'imageSize',
  'preset',
  'strategy',
  'confidence',
  'budget',
  'nSamples',
  'toKeep',
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
export interface Settings extends Omit<Values<(typeof CLASSIFY)[number]>, 'null'> {
  readonly inputs: readonly string[];
  /** Paths on standard input end in NUL. */
  readonly nul: boolean;
  /** What purifies the images first, if anything does. */
  readonly purifying: PurifyingSettings | undefined;
}

/**
 * Checks the options of a command line, each by itself and in combination; `typed` holds only those given.
 *
 * @throws UsageError, one sentence naming the option, what was got and what was wanted.
 */
export function readSettings(inputs: readonly string[], typed: Readonly<Record<string, unknown>>): Settings {
  const { null: nul, ...values } = readOptions(CLASSIFY, withPreset(typed));
  const settings = {
    ...values,
    nul,
    purifying: purifyingOf(values),
    inputs: nul && !inputs.includes('-') ? [...inputs, '-'] : inputs,
  };
  checkTogether(settings);
  return settings;
}

function checkTogether(settings: Settings): void {
  const { inputs, strategy, nSamples, toKeep, output } = settings;
  const refuse = (message: string) => {
    throw new UsageError(message);
  };
  checkInputs(inputs);
  if (strategy === 'staged' && !(nSamples && toKeep))
    refuse('--strategy staged wants --n-samples and --to-keep, such as --n-samples 50,500 --to-keep 5,1');
  if (strategy !== 'staged' && (nSamples || toKeep))
    refuse('--n-samples and --to-keep belong to --strategy staged');
  if (nSamples && toKeep && nSamples.length !== toKeep.length)
    refuse(`--n-samples has ${nSamples.length} stages, --to-keep ${toKeep.length}`);
  if (strategy !== 'sequential' && settings.confidence !== undefined)
    refuse('--confidence belongs to --strategy sequential');
  if (settings.energy && strategy === 'sequential')
    refuse(
      '--energy wants --strategy all or staged: sequential drops classes after levels that differ from image to image',
    );
  if (settings.prompts && settings.labels) refuse('--prompts and --labels exclude each other');
  if (settings.template && !settings.labels) refuse('--template wants --labels to fill in');
  checkShared(settings);
  if (settings.resume && (settings.format ?? formatOfFile(output)) === 'text')
    refuse('--resume reads JSON lines or CSV; expected --format jsonl or csv, got text');
  if (settings.errors !== undefined && settings.errors === output)
    refuse('--errors and --output are the same file');
}
