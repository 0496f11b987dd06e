// `calibrate`: fits the temperature that makes a model's probabilities match how often it is right on labelled images.

import { UsageError } from '../../../../errors.ts';
import type { OpenModelOptions } from '../../../../graph/models/open-model.ts';
import { classifyImages } from '../../../classifying/classify-images.ts';
import { all } from '../../../deciding/all.ts';
import {
  type ClassErrors,
  fitTemperature,
  holdOut,
  type Reliability,
  reliabilityOf,
} from '../../../deciding/calibration.ts';
import { failureOf } from '../../../images/failures.ts';
import { geometryOf, prepareImage } from '../../../images/prepare.ts';
import { findLabelled, type Labelled } from '../../../node/labelled.ts';
import type { OptionValues } from '../../../option.ts';
import { mapOrdered, until } from '../../../stream/iterables.ts';
import { type Classified, type ImageItem, type ItemFailure, isFailure } from '../../../types.ts';
import { type OptionName, readOptions } from '../../options/table.ts';
import { evaluationsOf } from '../../shared/evaluation-demand.ts';
import { timeEvaluations } from '../../shared/evaluation-timing.ts';
import { writeForecast } from '../../shared/forecast.ts';
import { countFound } from '../../shared/inputs.ts';
import type { Interruption } from '../../shared/interruption.ts';
import { checkSet } from '../../shared/labelled-set.ts';
import { modelOptions } from '../../shared/model-choice.ts';
import { modelFolder } from '../../shared/model-folder.ts';
import { type OpenedModel, openAhead } from '../../shared/opened-model.ts';
import { checkCandidates, checkGrid } from '../../shared/option-checks.ts';
import { type Reporter, short } from '../../shared/progress.ts';
import { type Run, type RunOutcome, runCommand, untilDropped } from '../../shared/run-command.ts';
import type { Subcommand, Surroundings } from '../../shared/subcommand.ts';
import { exactly, runTimeOf, secondsOf } from '../../shared/timing.ts';
import { placeOf } from '../../shared/truths.ts';
import { writeReport } from '../../shared/writers.ts';
import { storeFor } from './card-file.ts';

const CALIBRATE = [
  'model',
  'labels',
  'template',
  'prompts',
  'imageSize',
  'sizeConditioning',
  'timesteps',
  'sigmas',
  'loss',
  'weighting',
  'seed',
  'noise',
  'heldOut',
  'perClass',
  'bins',
  'reportFormat',
  'cardOut',
  'inPlace',
  'printOnly',
  'dryRun',
  'batch',
  'concurrency',
] as const satisfies readonly OptionName[];

/** A checked command line of `calibrate`. */
type CalibrateSettings = ReturnType<typeof readSettings>;

const HELP = `
SET is a folder with a folder of images for each class, a CSV file with the columns path and label, an IDX file
(...-images-idx3-ubyte[.gz], with its labels next to it), or a CIFAR batch (....bin[.gz]). Labels are names of the model's
classes or their numbers. Every image is evaluated in all classes on all noise levels; the temperature is fitted to
one part of them by maximum likelihood, and judged on the other.

The temperature is stored with --out, in a new card or in a copy of the model folder, or with --in-place in the card.json
of your own model folder. On a terminal you are asked if neither is given. Shipped models are never changed.

Examples:
  diffclass-stream calibrate photos/ --model path/to/model --print-only
  diffclass-stream calibrate photos/ --model path/to/model --in-place
  diffclass-stream calibrate photos/ --model fashion-mnist --out my-fashion-mnist/
`;

function readSettings([set = '']: readonly string[], typed: OptionValues) {
  const settings = { ...readOptions(CALIBRATE, typed), set };
  checkCandidates(settings);
  checkGrid(settings);
  const other = (['timesteps', 'sigmas', 'loss', 'weighting'] as const).find(
    (name) => settings[name] !== undefined,
  );
  const stores = [
    settings.printOnly && '--print-only',
    settings.inPlace && '--in-place',
    settings.cardOut && '--out',
  ];
  const [one, two] = stores.filter(Boolean);
  if (two) throw new UsageError(`${one} and ${two} exclude each other`);
  if (other && !settings.printOnly)
    throw new UsageError(
      `--${other}: a card's temperature holds for the model's own noise levels, weights and loss; to calibrate others, add --print-only`,
    );
  return settings;
}

/** The result of a calibration. */
export interface Calibration {
  readonly model: string;
  readonly images: { readonly fit: number; readonly heldOut: number; readonly failed: number };
  readonly temperature: { readonly before: number; readonly after: number };
  /** Of the images held out. */
  readonly before: Reliability;
  readonly after: Reliability;
  /** The card that it is stored in; null if it is not stored. */
  readonly stored: string | null;
}

/** Returns the errors of all classes of a classified image, given its true class. */
function outcomeOf({ top }: Classified, classidx: number): ClassErrors {
  const classes = [...top].sort((a, b) => a.classidx - b.classidx);
  return {
    errors: classes.map(({ error }) => error),
    truth: classes.findIndex((ranked) => ranked.classidx === classidx),
  };
}

/** Says how long the calibration will take. */
async function dryRun(
  settings: CalibrateSettings,
  { openModel, stdout }: Surroundings,
  folder: string,
  options: OpenModelOptions,
  run: Run,
): Promise<RunOutcome> {
  const images = await countFound(findLabelled(settings.set, settings));
  const model = await openModel(folder, options);
  run.atEnd(() => model.close());
  const opening = process.uptime();
  const { exhaustive: evaluations, atOnce } = evaluationsOf(model, { strategy: all() });
  const inFlight = Math.min(images, settings.concurrency ?? model.slots, model.slots);
  const timing = await timeEvaluations(model, inFlight, atOnce);
  const forecast = {
    model: model.name,
    images,
    work: { text: `${short(evaluations)} evaluations per image`, data: { evaluations } },
    timed: `${timing.runs} batches of ${short(timing.units)} evaluations`,
    time: runTimeOf(images, secondsOf(timing, exactly(evaluations)), opening + timing.once),
  };
  return writeForecast(stdout, forecast, settings.reportFormat);
}

const percent = (part: number) => `${(100 * part).toFixed(1)} %`;

/** Classifies all images of the set. Returns those that could be read, in the order of the set. */
async function classifySet(
  { set, perClass, seed, concurrency }: CalibrateSettings,
  { model: { inputShape, crop, candidates }, open }: OpenedModel,
  reporter: Reporter,
  interruption: Interruption,
): Promise<{ readonly outcomes: readonly ClassErrors[]; readonly failures: number }> {
  const truths: number[] = [];
  const load = async (item: Labelled | ItemFailure): Promise<ImageItem | ItemFailure> => {
    if (isFailure(item)) return item;
    // The path is replaced by a number, because a table may name an image twice.
    const { classidx } = candidates[placeOf(item.label, item.path, candidates)]!;
    const path = String(truths.push(classidx) - 1);
    try {
      const image = await item.pixels();
      const geometry = geometryOf(image, inputShape);
      return { path, pixels: prepareImage(image, inputShape, { crop }), geometry };
    } catch (error) {
      return failureOf(item.path, error);
    }
  };
  const found = new Map<number, ClassErrors>();
  let failures = 0;
  await untilDropped(interruption, async () => {
    const images = until(mapOrdered(findLabelled(set, { perClass }), 4, load), interruption.stop);
    const results = classifyImages(images, open, {
      strategy: all(),
      topK: Number.POSITIVE_INFINITY,
      seed,
      signal: interruption.drop,
      concurrency,
      onProgress: (now) => reporter.progress(now, 0, undefined),
    });
    for await (const result of results) {
      if (isFailure(result)) {
        failures++;
        reporter.log('warn', `${result.path}: ${result.error.message}`);
      } else found.set(Number(result.path), outcomeOf(result, truths[Number(result.path)]!));
    }
  });
  // Results come in the order in which they finish. Sorted as in the set, the two parts are always the same.
  const outcomes = [...found].sort(([a], [b]) => a - b).map(([, outcome]) => outcome);
  return { outcomes, failures };
}

/** Calibrates a model and prints what came of it; after an interruption nothing is stored. */
const calibrateModel = (settings: CalibrateSettings, surroundings: Surroundings): Promise<number> =>
  runCommand(surroundings, async (run) => {
    const { openModel, stdin, stdout, reporter, quiet } = surroundings;
    const { set, heldOut: fraction, bins, reportFormat } = settings;
    const folder = await modelFolder(settings.model);
    const options = await modelOptions(settings);
    await checkSet({ set });
    if (settings.dryRun) return dryRun(settings, surroundings, folder, options, run);
    const canAsk = !quiet && 'isTTY' in stdin && stdin.isTTY === true;
    const store = await storeFor(settings, folder, canAsk, surroundings);
    const opened = await openAhead(openModel, folder, options);
    run.atEnd(opened.close);
    const interruption = run.listen('interrupted');
    const { name, temperature: before } = opened.model;
    const { outcomes, failures } = await classifySet(settings, opened, reporter, interruption);
    if (interruption.status > 0) return { failures };
    const { fit, heldOut } = holdOut(outcomes, fraction);
    if (fit.length === 0 || heldOut.length === 0)
      throw new UsageError(
        `${set}: expected images to fit to and images to hold out, got ${fit.length} and ${heldOut.length}; add images or change --held-out`,
      );
    const after = fitTemperature(fit);
    const calibration: Calibration = {
      model: name,
      images: { fit: fit.length, heldOut: heldOut.length, failed: failures },
      temperature: { before, after },
      before: reliabilityOf(heldOut, before, bins),
      after: reliabilityOf(heldOut, after, bins),
      stored: await store(after),
    };
    await writeReport(stdout, reportFormat, calibration, calibrationText(calibration));
    return { failures };
  });

/** Formats a calibration for a person. */
export function calibrationText({ model, images, temperature, before, after, stored }: Calibration): string {
  const rows: (readonly [what: string, ...values: string[]])[] = [
    ['model', model],
    [
      'images',
      `${short(images.fit)} fitted to, ${short(images.heldOut)} held out${images.failed ? `, ${short(images.failed)} failed` : ''}`,
    ],
    ['accuracy', `${percent(after.accuracy)} of those held out`],
    ['', 'before', 'after'],
    ['temperature', temperature.before.toPrecision(4), temperature.after.toPrecision(4)],
    ['-ln p(right)', before.negativeLogLikelihood.toFixed(4), after.negativeLogLikelihood.toFixed(4)],
    ['ECE', percent(before.expectedCalibrationError), percent(after.expectedCalibrationError)],
  ];
  const table = after.bins.filter((bin) => bin.images > 0);
  const lines = rows.map(
    ([what, ...values]) => `${what.padEnd(15)}${values.map((value) => value.padEnd(12)).join('')}`,
  );
  lines.push('', `${'probability'.padEnd(15)}${'images'.padEnd(12)}${'mean'.padEnd(12)}right`);
  for (const { from, to, images: count, confidence, accuracy } of table)
    lines.push(
      `${`${from.toFixed(2)} to ${to.toFixed(2)}`.padEnd(15)}${String(count).padEnd(12)}${percent(confidence).padEnd(12)}${percent(accuracy)}`,
    );
  lines.push('', stored === null ? 'not stored' : `stored in ${stored}`);
  return `${lines.map((line) => line.trimEnd()).join('\n')}\n`;
}

export const calibrate: Subcommand<CalibrateSettings> = {
  name: 'calibrate',
  summary: "Fit the temperature of a model's probabilities to labelled images.",
  operands: { '<SET>': 'labelled images: a folder of class folders, a CSV file, an IDX or a CIFAR file' },
  options: CALIBRATE,
  help: HELP,
  usesDevice: true,
  read: readSettings,
  run: calibrateModel,
};
