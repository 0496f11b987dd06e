// The settings of `classify`: its command line, checked before anything is opened.

import { UsageError } from '../../../../errors.ts';
import { chooseStrategy, STRATEGIES } from '../../../deciding/strategies.ts';
import { entryOf, namesOf, type OptionValues, optionsOf } from '../../../option.ts';
import { withPreset } from '../../options/presets.ts';
import { type OptionName, readOptionSet, readOptions } from '../../options/table.ts';
import { inputsOf } from '../../shared/inputs.ts';
import { checkCandidates, checkGrid, checkResume } from '../../shared/option-checks.ts';
import { CLASSIFY_PURIFYING, purifyingOf } from '../../shared/purify-settings.ts';
import { formatOfFile } from '../../shared/result-lines.ts';

/** The options of `classify`, in the order of its help. */
export const CLASSIFY = [
  'model',
  'labels',
  'template',
  'prompts',
  'imageSize',
  'sizeConditioning',
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
  'maxPixels',
  'batch',
  'concurrency',
] as const satisfies readonly OptionName[];

/** A checked command line. */
export type Settings = ReturnType<typeof readSettings>;

/** Checks a command line, each option by itself and in combination. @throws UsageError, one sentence. */
export function readSettings(inputs: readonly string[], typed: OptionValues) {
  const given = withPreset(typed);
  const { null: nul, strategy, ...values } = readOptions(CLASSIFY, given);
  const settings = {
    ...values,
    deciding: chooseStrategy(strategy, readOptionSet(optionsOf(STRATEGIES), given)),
    nul,
    purifying: purifyingOf(values, given),
    inputs: inputsOf(inputs, nul),
  };
  const { output, resume } = settings;
  const refuse = (message: string) => {
    throw new UsageError(message);
  };
  checkCandidates(settings);
  checkGrid(settings);
  checkResume(settings);
  if (resume && (settings.format ?? formatOfFile(output)) === 'text')
    refuse('--resume reads JSON lines or CSV; expected --format jsonl or csv, got text');
  if (settings.errors !== undefined && settings.errors === output)
    refuse('--errors and --output name the same file; expected two files');
  const { energyRefusal } = entryOf(STRATEGIES, strategy);
  if (settings.energy && energyRefusal !== undefined) {
    const others = STRATEGIES.filter((other) => other.energyRefusal === undefined);
    refuse(`--energy needs --strategy ${namesOf(others)}: ${energyRefusal}`);
  }
  return settings;
}
