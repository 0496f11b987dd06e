// `evaluate`: accuracy of a labelled set of images, as they are and under attacks.

import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { UsageError } from '../../../../errors.ts';
import type { AttackName } from '../../../attacking/attacks.ts';
import { attackAndJudge, judged } from '../../../attacking/campaign.ts';
import { nextAttack, type Result, type Table, tableOf, tableText } from '../../../attacking/robustness.ts';
import { toUnit } from '../../../images/pixels.ts';
import { prepareImage } from '../../../images/prepare.ts';
import type { OptionSet, OptionValues } from '../../../option.ts';
import { madeBy } from '../../../types.ts';
import { type OptionName, readOptions } from '../../options/table.ts';
import {
  ATTACK_OPTIONS,
  checkRobust,
  type Opened,
  openCampaign,
  planOf,
  ROBUST,
} from '../../shared/attack-campaign.ts';
import { forecastRobust } from '../../shared/attack-forecast.ts';
import type { Interruption } from '../../shared/interruption.ts';
import { checkSet, countImages, imagesOf, type SetImage } from '../../shared/labelled-set.ts';
import { modelFolder } from '../../shared/model-folder.ts';
import { checkResume } from '../../shared/option-checks.ts';
import { checkOutputFolder } from '../../shared/output-checks.ts';
import { duration, several } from '../../shared/progress.ts';
import { provenanceOf, weightsHash } from '../../shared/provenance.ts';
import { PURIFY_FIRST_OPTIONS } from '../../shared/purify-settings.ts';
import { runCommand } from '../../shared/run-command.ts';
import { runItems } from '../../shared/run-items.ts';
import type { Subcommand, Surroundings } from '../../shared/subcommand.ts';
import { placeOf } from '../../shared/truths.ts';
import { fileWriter, streamWriter, type Writer } from '../../shared/writers.ts';
import { saveAdversarial } from './adversarial-files.ts';
import { type Fingerprint, NOTHING, openLog, readLog } from './evaluation-log.ts';

const EVALUATE = [
  ...ROBUST,
  'attacks',
  'everyAttack',
  'truth',
  'images',
  'output',
  'save',
  'reportFormat',
  'resume',
  'overwrite',
  'dryRun',
] as const satisfies readonly OptionName[];

/**
 * A checked command line of `evaluate`. Its `labelsCsv` is a table of true classes with paths relative to the set (see
 * old-spellings.ts).
 */
type EvaluateSettings = ReturnType<typeof readSettings>;

const HELP = `
SET is a folder with a folder of images for each class (by name or number), a CSV table (path,label), an IDX file of
images with its labels next to it (MNIST, Fashion-MNIST), or a CIFAR batch (.bin), gzipped or not.

The attacks are run in their order, each on the images that are still right. An image that one of them breaks is not
attacked again, so a row of the table counts the images that are right after its attack and all before it (as
AutoAttack does); with --every-attack each attack is run on every image that was right as it is. The classifier judges
as it is used, purification included: an image is broken if it is wrong as found, or as 8 bits. The worst case is the
share of images that no attack breaks. Intervals are Wilson's, at 95 %.

With --output, a log next to it (FILE.log.jsonl) keeps how the run was made and the result of every image and attack,
and --resume goes on with it. With --save, adversarial images are written as ATTACK/CLASS/IMAGE.png, so that ATTACK is a
labelled set again, each with its floats as .safetensors.

Examples:
  diffclass-stream evaluate testset/ --attacks none
  diffclass-stream evaluate t10k-images-idx3-ubyte.gz --images 512 --eps 0.1 --attacks apgd-ce,apgd-t,square -o f.txt
  diffclass-stream evaluate testset/ --purify lm-momentum --gradient full --eps 8/255 --eot 4 --randomness fresh
`;

function readSettings([set = '']: readonly string[], typed: OptionValues) {
  const values = readOptions(EVALUATE, typed);
  checkResume(values);
  const labelsCsv = typed.labelsCsv === undefined ? undefined : String(typed.labelsCsv);
  if (values.truth !== undefined && labelsCsv !== undefined)
    throw new UsageError('--truth and --labels-csv exclude each other');
  if (values.resume && values.overwrite) throw new UsageError('--resume and --overwrite exclude each other');
  if (values.save !== undefined && values.attacks.length === 0)
    throw new UsageError('--save needs --attacks: without an attack there are no adversarial images');
  return { ...values, ...checkRobust(values, values.attacks, typed), set, labelsCsv };
}

/** Returns the path of the log of an output. */
const logOf = (output: string) => `${output}.log.jsonl`;

/** Returns the name of a file without its folder, which is not recorded. */
const named = (path: string | undefined) => path && basename(path);

/** Returns the values of options under names with a prefix: `purifySteps` for `steps`. */
const under = (prefix: string, options: OptionSet, values: OptionValues) =>
  Object.fromEntries(
    Object.keys(options).map((name) => [prefix + name[0]!.toUpperCase() + name.slice(1), values[name]]),
  );

/**
 * Returns the settings that the result of an image under an attack depends on: not the number of images, their batches or
 * which attacks are run.
 */
function fingerprint(settings: EvaluateSettings, folder: string, weights: string | null): Fingerprint {
  const { output, reportFormat, resume, overwrite, save, dryRun, ...all } = settings;
  const { batch, concurrency, images, everyAttack, attacks, gradientMode: _, purifying, ...rest } = all;
  const {
    attackValues,
    epsText,
    set,
    model: __,
    truth,
    labelsCsv,
    noise,
    weighting,
    purifyNoise,
    ...own
  } = rest;
  return {
    ...own,
    ...under('attack', ATTACK_OPTIONS, attackValues),
    ...under('purify', PURIFY_FIRST_OPTIONS, { ...purifying }),
    ...{ noise: named(noise), weighting: named(weighting), purifyNoise: named(purifyNoise) },
    eps: epsText,
    set: named(resolve(set)),
    truth: named(truth),
    labelsCsv: named(labelsCsv),
    model: named(resolve(folder)),
    weights,
    plans: attacks.map((attack) => planOf(attack, settings)),
  };
}

/** Results of images by their keys, and of each by attack. */
type Results = Map<string, Map<string, Result>>;

function add(results: Results, result: Result): void {
  const own = results.get(result.key) ?? new Map<string, Result>();
  results.set(result.key, own.set(result.attack, result));
}

/** What the images of a run go through. */
interface Evaluation {
  readonly settings: EvaluateSettings;
  readonly opened: Opened;
  readonly results: Results;
  readonly log: Writer | undefined;
  readonly interruption: Interruption;
}

/** Runs the attacks that an image still lacks, and records each result. */
async function evaluateImage(item: SetImage, { settings, opened, results, log, interruption }: Evaluation) {
  const { model, campaign, labels } = opened;
  const { attacks, everyAttack: every, save } = settings;
  const { key } = item;
  const label = placeOf(item.label, item.path, labels);
  const x = toUnit(prepareImage(await item.pixels(), model.inputShape, { crop: model.crop }));
  const record = async (result: Result) => {
    add(results, result);
    await log?.write(`${JSON.stringify(result)}\n`);
  };
  if (!results.get(key)?.has('clean')) {
    const { prediction, margin } = await judged(campaign.judge, x, label);
    await record({ key, attack: 'clean', label, prediction, margin, right: prediction === label });
  }
  const next = () => nextAttack<AttackName>(results.get(key)!, attacks, { every });
  for (let attack = next(); attack && !interruption.stop.aborted; attack = next()) {
    const found = await attackAndJudge(campaign, planOf(attack, settings), { x, label, key });
    const queries = found.queries.logits + found.queries.gradients;
    const { prediction, margin } = found.prediction === label ? found.quantised : found;
    const adversarial = { attack, key, label: labels[label]!, quantised: found.x, found: found.found };
    const saved =
      save === undefined || !found.broken
        ? {}
        : { saved: await saveAdversarial(save, adversarial, labels, model.inputShape) };
    await record({ key, attack, label, prediction, margin, right: !found.broken, queries, ...saved });
  }
}

/** @throws UsageError if the output exists and neither --resume nor --overwrite was given. */
async function checkUnused(path: string): Promise<void> {
  const info = await stat(path).catch(() => undefined);
  if (info?.isFile() && info.size > 0)
    throw new UsageError(`--output: ${path} exists already; --resume continues it, --overwrite replaces it`);
}

/** Returns the earlier results that still count: if adversarial images are saved, those of broken images must exist. */
function goodResults(results: readonly Result[], save: string | undefined): Results {
  const good: Results = new Map();
  for (const result of results) {
    const broken = result.attack !== 'clean' && !result.right;
    const missing = save !== undefined && broken && !(result.saved && existsSync(join(save, result.saved)));
    if (!missing) add(good, result);
  }
  return good;
}

/** Returns the report in JSON: the table, the model and the settings. */
function report(settings: EvaluateSettings, { model, campaign }: Opened, table: Table, failures: number) {
  const { norm, eot, randomness, seed } = campaign;
  const { set, epsText, purifying, gradientMode, levelsPerStep, attacks, everyAttack } = settings;
  return {
    ...madeBy(model),
    set: named(resolve(set)),
    seed,
    ...(attacks.length > 0 ? { norm, eps: epsText, eot, randomness, everyAttack } : {}),
    ...(levelsPerStep === undefined ? {} : { levelsPerStep }),
    ...(purifying ? { purify: purifying.method, gradient: gradientMode } : {}),
    plans: attacks.map((attack) => planOf(attack, settings)),
    ...table,
    failures,
  };
}

/** Evaluates the set and writes the table, unless the run was interrupted. */
const evaluateSet = (settings: EvaluateSettings, surroundings: Surroundings): Promise<number> =>
  runCommand(surroundings, async (run) => {
    const { openModel, stdout, reporter } = surroundings;
    const { set, output, resume, attacks, reportFormat, everyAttack: every } = settings;
    if (settings.dryRun) {
      const images = await countImages(settings);
      const least = { judge: 1, logits: 0, gradients: 0 };
      return forecastRobust(settings, attacks, images, least, surroundings, run);
    }
    await checkSet(settings);
    if (settings.save !== undefined) await checkOutputFolder('--save', settings.save);
    for (const path of output === '-' ? [] : [output, logOf(output)]) {
      if (!resume && !settings.overwrite) await checkUnused(path);
      await run.claim(path, { option: '--output', inputs: [set] });
    }
    const folder = await modelFolder(settings.model);
    const of = fingerprint(settings, folder, await weightsHash(folder));
    const earlier = resume ? await readLog(logOf(output), of) : NOTHING;
    const opened = await openCampaign(settings, openModel, attacks);
    run.atEnd(opened.close);
    const interruption = run.listen(
      output === '-'
        ? 'interrupted; finishing the attacks under way'
        : 'interrupted; finishing the attacks under way (--resume goes on from there)',
    );
    const now = provenanceOf(opened.model);
    const made = earlier.made ?? now;
    if (made.precision !== now.precision)
      throw new UsageError(
        `${logOf(output)}: was made in ${made.precision ?? 'f32'}, and this run is in ${now.precision ?? 'f32'}; repeat the earlier --precision, or begin anew with --overwrite`,
      );
    const [before, after] = [made, now].map(({ overlays = {} }) => JSON.stringify(overlays));
    if (before !== after)
      throw new UsageError(
        `${logOf(output)}: was made with ${before}, and this run has ${after}; repeat the earlier --lora, or begin anew with --overwrite`,
      );
    if (made.version !== now.version || made.device !== now.device)
      reporter.log(
        'warn',
        `the earlier results are of version ${made.version} on ${made.device ?? 'another device'}`,
      );
    const log = output === '-' ? undefined : await openLog(logOf(output), of, made, earlier);
    if (log) run.atEnd(log.close);
    const results = goodResults(earlier.results, settings.save);
    const evaluation = { settings, opened, results, log, interruption };
    const keys = new Set<string>();
    const { concurrency, model } = opened;
    const evaluated = await runItems(
      imagesOf(settings),
      (item) => {
        keys.add(item.key);
        return evaluateImage(item, evaluation);
      },
      { concurrency, interruption, reporter, total: settings.images },
    );
    const failures = evaluated.failures.length;
    const images = evaluated.results.length + failures;
    reporter.log(
      'info',
      `${several(images, 'image')} evaluated with ${model.name} in ${duration(evaluated.seconds)}`,
    );
    if (interruption.status > 0) return { failures };
    // The log may hold more images than this run has.
    const asked = [...keys].flatMap((key) => [...(results.get(key)?.values() ?? [])]);
    const table = tableOf(asked, attacks, { every });
    const text =
      reportFormat === 'json'
        ? `${JSON.stringify({ ...report(settings, opened, table, failures), options: of, ...made })}\n`
        : tableText(
            table,
            attacks.length > 0 ? `, attacks in ${settings.norm ?? 'linf'} with eps ${settings.epsText}` : '',
          );
    const writer = output === '-' ? streamWriter(stdout) : await fileWriter(output, false);
    await writer.write(text);
    await writer.close();
    return { failures };
  });

export const evaluate: Subcommand<EvaluateSettings> = {
  name: 'evaluate',
  summary: 'Measure the clean and the robust accuracy of a model on labelled images.',
  operands: { '<SET>': 'labelled images' },
  options: EVALUATE,
  entryOptions: { Attacking: ATTACK_OPTIONS, Purifying: PURIFY_FIRST_OPTIONS },
  help: HELP,
  usesDevice: true,
  read: readSettings,
  run: evaluateSet,
};
