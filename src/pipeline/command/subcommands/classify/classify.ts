// `classify`: images in, one line per image out.

import { classifyImages } from '../../../classifying/classify-images.ts';
import { STRATEGIES } from '../../../deciding/strategies.ts';
import { IMAGE_EXTENSIONS } from '../../../images/extensions.ts';
import { loadImages } from '../../../node/load.ts';
import { findImages } from '../../../node/sources.ts';
import { optionsOf } from '../../../option.ts';
import { until } from '../../../stream/iterables.ts';
import { purifyImages } from '../../../stream/purify-images.ts';
import { isFailure, type Progress } from '../../../types.ts';
import { notDone } from '../../shared/earlier-results.ts';
import type { Interruption } from '../../shared/interruption.ts';
import { modelOptions } from '../../shared/model-choice.ts';
import { modelFolder } from '../../shared/model-folder.ts';
import {
  type OpenedModel,
  type OpenedPurification,
  openAhead,
  openPurification,
} from '../../shared/opened-model.ts';
import { duration, several, short } from '../../shared/progress.ts';
import { PURIFY_FIRST_OPTIONS } from '../../shared/purify-settings.ts';
import { evaluationLines } from '../../shared/result-lines.ts';
import {
  interruptedText,
  type Run,
  type RunOutcome,
  runCommand,
  untilDropped,
} from '../../shared/run-command.ts';
import { followProgress } from '../../shared/stream-progress.ts';
import type { Subcommand, Surroundings } from '../../shared/subcommand.ts';
import { classifyRecord } from './classify-record.ts';
import { CLASSIFY, readSettings, type Settings } from './classify-settings.ts';
import { dryRun } from './dry-run.ts';
import { HELP } from './help.ts';
import { inputNotes } from './input-notes.ts';
import { apartFrom, type Claims, claimOutputs, openResults, type Results } from './results.ts';

/** What the images of a run go through. */
interface Opened {
  readonly classifier: OpenedModel;
  /** Purifies the images first, with --purify. */
  readonly purification: OpenedPurification | undefined;
  readonly results: Results;
  readonly claims: Claims;
  readonly interruption: Interruption;
}

/** Classifies all images and writes their results. */
async function classifyAll(
  settings: Settings,
  surroundings: Surroundings,
  { classifier: { model, open }, purification, results, claims, interruption }: Opened,
  run: Run,
): Promise<RunOutcome> {
  const { stdin, reporter } = surroundings;
  const { inputs, nul, topK, order, energy, concurrency, purifying } = settings;
  let undecided = 0;
  const progress = followProgress(inputs, surroundings, interruption.stop, run);
  const notes = inputNotes(model);
  const { onPassedOver, onSummary } = notes;
  const found = apartFrom(findImages(inputs, { stdin, nul, onPassedOver }), claims);
  const fresh = results.done ? notDone(found, results.done, progress.onSkip) : found;
  const loaded = until(
    loadImages(fresh, model.inputShape, { crop: model.crop, maxPixels: settings.maxPixels, onSummary }),
    interruption.stop,
  );
  const signal = interruption.drop;
  const { noise } = purification ?? {};
  const { errors } = results;
  await untilDropped(interruption, async () => {
    const images =
      purifying && purification
        ? purifyImages(loaded, purification.open, { ...purifying, noise, concurrency, signal })
        : loaded;
    const classified = classifyImages(images, open, {
      strategy: settings.deciding.strategy,
      budget: settings.budget,
      topK,
      order,
      energy,
      seed: settings.noise === undefined ? settings.seed : undefined,
      signal,
      concurrency,
      onEvaluations: errors && ((records) => errors.write(evaluationLines(records))),
      onProgress: progress.onProgress,
    });
    for await (const result of classified) {
      if (!isFailure(result) && !result.decided) undecided++;
      await results.write(purifying && !isFailure(result) ? { ...result, purify: purifying.method } : result);
      if (results.closed) break;
      notes.onResult(result);
    }
  });
  const { last, skipped } = progress;
  const isNothing = last.images === 0 && interruption.status > 0;
  if (!results.closed && !isNothing)
    for (const line of [summary(last, { skipped, undecided }), ...notes.sentences()])
      reporter.log('info', line);
  return { failures: last.failures, readerGone: results.closed };
}

/** Seconds above which a rate is shown; less is shown as 0.0 s. */
const LEAST_SECONDS = 0.05;

/** Sums up a run in one sentence. The rate counts only images that were classified. */
function summary(
  { images, failures, evaluations, seconds }: Progress,
  { skipped, undecided }: { readonly skipped: number; readonly undecided: number },
): string {
  const classified = images - failures;
  if (images === 0)
    return skipped > 0
      ? `nothing left to do: the output has results of ${several(skipped, 'image')} already`
      : `no images found (files are taken for images by their names: ${IMAGE_EXTENSIONS.join(', ')})`;
  const parts = [
    classified > 0
      ? `${several(classified, 'image')} classified in ${duration(seconds)}`
      : 'no image could be classified',
  ];
  if (classified > 0 && seconds > LEAST_SECONDS) parts.push(`${short(classified / seconds)} images/s`);
  if (classified > 0) parts.push(`${short(evaluations / classified)} evaluations per image`);
  if (undecided > 0) parts.push(`${short(undecided)} undecided`);
  if (failures > 0) parts.push(`${short(failures)} failed`);
  if (skipped > 0) parts.push(`${short(skipped)} done before`);
  return parts.join(', ');
}

/** Classifies what the settings name and writes the results. */
const classifyInputs = (settings: Settings, surroundings: Surroundings): Promise<number> =>
  runCommand(surroundings, async (run) => {
    const { openModel, reporter } = surroundings;
    const { purifying } = settings;
    const folder = await modelFolder(settings.model);
    const options = await modelOptions(settings);
    const claims = settings.dryRun ? undefined : await claimOutputs(settings, run);
    const classifier = await openAhead(openModel, folder, options);
    run.atEnd(classifier.close);
    const opening = process.uptime();
    const { model } = classifier;
    const { name, candidates, levels, batchSize, slots } = model;
    reporter.log(
      'debug',
      `${name}: ${candidates.length} candidates, ${levels.length} noise levels, batches of ${batchSize}, ${slots} images in flight`,
    );
    const interruption = run.listen(interruptedText('the images in flight'));
    if (!claims) return dryRun(settings, surroundings, { classifier, folder, options, opening }, run);
    const purification = purifying && (await openPurification(purifying, settings, folder, openModel));
    if (purification) run.atEnd(purification.close);
    const record = await classifyRecord(settings, model, folder);
    const results = await openResults(settings, claims, model, record, surroundings);
    run.atEnd(results.close);
    const opened = { classifier, purification, results, claims, interruption };
    return classifyAll(settings, surroundings, opened, run);
  });

export const classify: Subcommand<Settings> = {
  name: 'classify',
  summary: 'Classify images with a diffusion model: images in, one line per image out.',
  operands: { '[INPUT...]': 'image files, folders, patterns or -' },
  usage: '[classify] [options] INPUT...',
  options: CLASSIFY,
  entryOptions: { Deciding: optionsOf(STRATEGIES), Purifying: PURIFY_FIRST_OPTIONS },
  help: HELP,
  usesDevice: true,
  read: readSettings,
  run: classifyInputs,
};
