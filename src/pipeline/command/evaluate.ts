// `evaluate`: accuracy of a labelled set of images, as they are and under attacks.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { attackAndJudge, judged } from '../attacking/campaign.ts';
import { type Result, tableOf, tableText } from '../attacking/robustness.ts';
import { UsageError } from '../errors.ts';
import { decodeFile } from '../images/decode.ts';
import { failureOf } from '../images/failures.ts';
import { findLabelled, type Labelled } from '../images/labelled.ts';
import { prepare } from '../images/load.ts';
import { toUnit } from '../images/pixels.ts';
import { mapOrdered, until } from '../stream/iterables.ts';
import { unlessAborted } from '../stream/pull.ts';
import { type ItemFailure, isFailure, madeBy, progressAfter } from '../types.ts';
import { newCommand, type Texts } from './command.ts';
import { type EvaluationLog, openLog } from './evaluationlog.ts';
import { type Interruption, interruptible } from './interruption.ts';
import { addOptions, type OptionName, readOptions, type Values } from './options/table.ts';
import { duration, short } from './progress.ts';
import { checkRobust, type Opened, openCampaign, planOf, ROBUST, type RobustSettings } from './robust.ts';
import type { Surroundings } from './run.ts';
import { fileWriter, streamWriter } from './sinks.ts';
import { placeOf, readLabels } from './truths.ts';

const EVALUATE = [
  ...ROBUST,
  'attacks',
  'labelsCsv',
  'images',
  'output',
  'json',
  'resume',
] as const satisfies readonly OptionName[];

/** A checked command line of `evaluate`. */
export interface EvaluateSettings
  extends RobustSettings,
    Pick<
      Values<(typeof EVALUATE)[number]>,
      'attacks' | 'labelsCsv' | 'images' | 'output' | 'json' | 'resume'
    > {
  readonly set: string;
}

const AFTER = `
SET is a folder with a folder of images for each class (by name or number), a CSV table (path,label), an IDX file of
images with its labels beside it (MNIST, Fashion-MNIST), or a CIFAR batch (.bin), gzipped or not.

Every attack is run on every image that is right as it is; an image counts as right under an attack where the judge
(the classifier as it is used, purification and all) has it right, as found and as 8 bits. The worst case is the share
that is right under every attack. Intervals are Wilson's, at 95 %. What was found is also logged beside --output, a
line an image and attack, and --resume takes that up.

Examples:
  diffclass-stream evaluate testset/ --attacks none
  diffclass-stream evaluate t10k-images-idx3-ubyte.gz --images 512 --eps 0.1 --attacks apgd-ce,apgd-t,square -o f.txt
  diffclass-stream evaluate testset/ --purify lm-momentum --gradient full --eps 8/255 --eot 4 --randomness fresh
`;

/** The command `evaluate` as people see it. */
export const evaluateCommand = (texts: Texts) =>
  addOptions(
    newCommand('diffclass-stream evaluate', texts)
      .description('Clean and robust accuracy of a model on labelled images.')
      .usage('[options] SET')
      .argument('<SET>', 'labelled images')
      .addHelpText('after', AFTER),
    EVALUATE,
  );

/** Checks a command line of `evaluate`. @throws UsageError, one sentence. */
export function readEvaluateSettings(
  [set = '']: readonly string[],
  typed: Readonly<Record<string, unknown>>,
): EvaluateSettings {
  const values = readOptions(EVALUATE, typed);
  if (values.resume && values.output === '-')
    throw new UsageError('--resume wants --output FILE, whose log says what is done');
  return { ...values, ...checkRobust(values, values.attacks), set };
}

/** Where the log of an output is. */
const logOf = (output: string) => `${output}.log.jsonl`;

/** What results depend on; the number of images, and how they are batched, they do not. */
function fingerprint(settings: EvaluateSettings) {
  const { output, json, resume, quiet, logLevel, batch, concurrency, images, ...all } = settings;
  const { attacks, gradientMode: _, purifying: __, ...rest } = all;
  return { ...rest, plans: attacks.map((attack) => planOf(attack, settings)) };
}

/** Shares out `wanted` images as evenly as what there is of each class allows, earlier classes first. */
export function quotas(available: ReadonlyMap<string, number>, wanted: number): Map<string, number> {
  const taken = new Map([...available.keys()].map((label) => [label, 0]));
  let left = wanted;
  for (let before = -1; left > 0 && left !== before; ) {
    before = left;
    for (const [label, count] of available)
      if (left > 0 && taken.get(label)! < count) {
        taken.set(label, taken.get(label)! + 1);
        left--;
      }
  }
  return taken;
}

/** The images of the settings, at most as many as wanted: the first ones, or of class folders some of each class. */
async function* images({
  set,
  labelsCsv,
  images: wanted = Number.POSITIVE_INFINITY,
}: EvaluateSettings): AsyncGenerator<Labelled | ItemFailure> {
  const all = () => (labelsCsv === undefined ? findLabelled(set) : inTable(set, labelsCsv));
  const isFolder = await stat(set).then(
    (info) => info.isDirectory(),
    () => false,
  );
  if (labelsCsv !== undefined || !isFolder || !Number.isFinite(wanted)) {
    let count = 0;
    for await (const item of all()) {
      if (count++ >= wanted) return;
      yield item;
    }
    return;
  }
  const available = new Map<string, number>();
  for await (const item of all())
    if (!isFailure(item)) available.set(item.label, (available.get(item.label) ?? 0) + 1);
  const left = quotas(available, wanted);
  for await (const item of all()) {
    if (isFailure(item)) continue;
    const count = left.get(item.label) ?? 0;
    left.set(item.label, count - 1);
    if (count > 0) yield item;
  }
}

async function* inTable(folder: string, table: string): AsyncGenerator<Labelled> {
  for (const { path, label } of await readLabels(table)) {
    const whole = join(folder, path);
    yield { path: whole, label, pixels: () => decodeFile(whole) };
  }
}

/** Runs what is missing of one image and logs it; returns how many evaluations were logged. */
async function evaluateImage(
  item: Labelled,
  settings: EvaluateSettings,
  { model, campaign, labels }: Opened,
  earlier: ReadonlyMap<string, Result>,
  { log, stop }: { readonly log: (result: Result) => Promise<void>; readonly stop: AbortSignal },
): Promise<void> {
  const label = placeOf(item.label, item.path, labels);
  const x = toUnit(prepare(await item.pixels(), model.inputShape, { crop: model.crop }));
  const key = item.path;
  let clean = earlier.get(`${key}\0clean`);
  if (!clean) {
    const { prediction, margin } = await judged(campaign.judge, x, label);
    clean = { key, attack: 'clean', label, prediction, margin, right: prediction === label };
    await log(clean);
  }
  if (!clean.right) return;
  for (const attack of settings.attacks) {
    if (earlier.has(`${key}\0${attack}`)) continue;
    if (stop.aborted) return;
    const found = await attackAndJudge(campaign, planOf(attack, settings), { x, label, key });
    const queries = found.queries.logits + found.queries.gradients;
    const { prediction, margin } = found.prediction === label ? found.quantised : found;
    await log({ key, attack, label, prediction, margin, right: !found.broken, queries });
  }
}

/** Runs all images; returns all results, and how many images failed. */
async function evaluateAll(
  settings: EvaluateSettings,
  opened: Opened,
  {
    earlier,
    writer,
  }: Pick<EvaluationLog, 'earlier'> & { readonly writer: EvaluationLog['writer'] | undefined },
  interruption: Interruption,
  { reporter }: Surroundings,
): Promise<{ readonly results: readonly Result[]; readonly failures: number }> {
  const { model, concurrency } = opened;
  const done = new Map(earlier.map((result) => [`${result.key}\0${result.attack}`, result]));
  const taken = new Set<string>();
  const results = new Map(done);
  const began = Date.now();
  let count = 0;
  let failures = 0;
  const log = async (result: Result) => {
    results.set(`${result.key}\0${result.attack}`, result);
    await writer?.write(`${JSON.stringify(result)}\n`);
  };
  const source = until(images(settings), interruption.stop);
  const run = async (item: Labelled | ItemFailure): Promise<ItemFailure | undefined> => {
    if (isFailure(item)) return item;
    taken.add(item.path);
    try {
      const stop = interruption.stop;
      await unlessAborted(evaluateImage(item, settings, opened, done, { log, stop }), interruption.drop);
      return undefined;
    } catch (error) {
      if (error instanceof UsageError || interruption.drop.aborted) throw error;
      return failureOf(item.path, error);
    }
  };
  try {
    for await (const failure of mapOrdered(source, concurrency, run)) {
      count++;
      if (failure) {
        failures++;
        reporter.log('warn', `${failure.path}: ${failure.error.message}`);
      }
      const counts = { images: count, failures, evaluations: 0 };
      reporter.progress(progressAfter((Date.now() - began) / 1000, counts), 0, settings.images);
    }
  } catch (error) {
    if (!interruption.drop.aborted || error !== interruption.drop.reason) throw error;
  }
  reporter.log('info', `${short(count)} images of ${model.name} in ${duration((Date.now() - began) / 1000)}`);
  // A log may know more images than were asked for this time.
  const asked = [...results.values()].filter(({ key }) => taken.has(key));
  return { results: asked, failures };
}

/**
 * Evaluates what the settings name and writes the table. Returns the exit status: 0 all evaluated, 1 some images
 * failed, 130 interrupted (then without a table).
 *
 * @throws UsageError, ModelError and the device's errors, which end the run.
 */
export async function evaluate(settings: EvaluateSettings, surroundings: Surroundings): Promise<number> {
  const { openModel, stdout, signals, reporter } = surroundings;
  const { output, resume, attacks, json } = settings;
  const opened = await openCampaign(settings, openModel, attacks);
  const interruption = interruptible(signals, () =>
    reporter.log(
      'warn',
      `interrupted; finishing what is under way${output === '-' ? '' : ' (--resume takes it up)'}`,
    ),
  );
  let log: EvaluationLog | undefined;
  try {
    if (output !== '-') log = await openLog(logOf(output), fingerprint(settings), resume);
    const held = { earlier: log?.earlier ?? [], writer: log?.writer };
    const { results, failures } = await evaluateAll(settings, opened, held, interruption, surroundings);
    if (interruption.status > 0) return interruption.status;
    const table = tableOf(results, attacks);
    const text = json ? `${JSON.stringify(report(settings, opened, table, failures))}\n` : tableText(table);
    const writer = output === '-' ? streamWriter(stdout) : await fileWriter(output, false);
    await writer.write(text);
    await writer.close();
    return failures > 0 ? 1 : 0;
  } finally {
    interruption.release();
    await log?.writer.close();
    opened.close();
  }
}

/** The table with what it was made with. */
function report(
  settings: EvaluateSettings,
  { model, campaign }: Opened,
  table: ReturnType<typeof tableOf>,
  failures: number,
) {
  const { norm, eps, eot, randomness, seed } = campaign;
  const { set, purifying, gradientMode, levelsPerStep, attacks } = settings;
  return {
    ...madeBy(model),
    set,
    seed,
    ...(attacks.length > 0 ? { norm, eps, eot, randomness } : {}),
    ...(levelsPerStep === undefined ? {} : { levelsPerStep }),
    ...(purifying ? { purify: purifying.method, gradient: gradientMode } : {}),
    plans: attacks.map((attack) => planOf(attack, settings)),
    ...table,
    failures,
  };
}
