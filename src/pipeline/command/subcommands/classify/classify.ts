// The main job of the command line: images in, one line each out.

import type { AbortSignalLike } from '../../../../host-types.ts';
import { classifyImages } from '../../../classifying/classify-images.ts';
import { STRATEGIES } from '../../../deciding/strategies.ts';
import { IMAGE_EXTENSIONS } from '../../../images/extensions.ts';
import { loadImages } from '../../../node/load.ts';
import { findImages } from '../../../node/sources.ts';
import type { ClassifyOptions } from '../../../operators/classify-options.ts';
import { optionsOf } from '../../../option.ts';
import { until } from '../../../stream/iterables.ts';
import { purifyImages, stepsBy } from '../../../stream/purify-images.ts';
import { type ImageItem, type ItemFailure, isFailure, type Progress } from '../../../types.ts';
import { evaluationLines } from '../../shared/format.ts';
import { countInputs } from '../../shared/inputs.ts';
import { type Interruption, interruptible } from '../../shared/interruption.ts';
import { checkModel, modelOptions, type OpenFolder } from '../../shared/model-choice.ts';
import { modelFolder } from '../../shared/model-folder.ts';
import { opener } from '../../shared/opened-model.ts';
import { duration, short } from '../../shared/progress.ts';
import { hostNoise, purifierOptions } from '../../shared/purifying.ts';
import { notDone } from '../../shared/resume.ts';
import type { Subcommand } from '../../shared/subcommand.ts';
import type { Surroundings } from '../../shared/surroundings.ts';
import { dryRun } from './dry-run.ts';
import { HELP } from './help.ts';
import { inputNotes } from './input-notes.ts';
import { classifyRecord } from './record.ts';
import { apartFrom, type Claims, claimOutputs, openResults, type Results } from './results.ts';
import { CLASSIFY, readSettings, type Settings } from './settings.ts';

/** The strategy and the budget of settings. */
function deciding(settings: Settings): Pick<ClassifyOptions, 'strategy' | 'budget'> {
  const { budget } = settings;
  return { strategy: settings.deciding.strategy, ...(budget === undefined ? {} : { budget }) };
}

/** What puts a stream of images through a purification, where the settings ask for one. */
interface Purifier {
  readonly through: (
    images: AsyncIterable<ImageItem | ItemFailure>,
  ) => AsyncIterable<ImageItem | ItemFailure>;
  readonly close: () => void;
}

/** Opens what purifies, and checks that it can. */
async function purifier(
  { purifying, batch, concurrency, imageSize }: Settings,
  openModel: OpenFolder,
  folder: string,
  signal: AbortSignalLike,
): Promise<Purifier> {
  if (!purifying) return { through: (images) => images, close: () => undefined };
  const { model, open, close } = await opener(
    openModel,
    folder,
    await purifierOptions(purifying, { batch, imageSize }),
  );
  try {
    const noise = await hostNoise(purifying, model);
    stepsBy(model, { ...purifying, noise });
    const options = { ...purifying, noise, concurrency, signal };
    return { through: (images) => purifyImages(images, open, options), close };
  } catch (error) {
    close();
    throw error;
  }
}

/** What a stream of results runs on. */
interface Running {
  readonly opened: Awaited<ReturnType<typeof opener>>;
  readonly purifier: Purifier;
  readonly results: Results;
  readonly claims: Claims;
  readonly interruption: Interruption;
}

/** Everything between the opened model and the last line; returns how many items failed. */
async function stream(
  settings: Settings,
  { stdin, reporter, quiet }: Surroundings,
  { opened: { model, open }, purifier: { through }, results, claims, interruption }: Running,
): Promise<{ readonly failures: number; readonly readerGone: boolean }> {
  const counts = { skipped: 0, undecided: 0 };
  let total: number | undefined;
  let last: Progress = { images: 0, failures: 0, evaluations: 0, seconds: 0, imagesPerSecond: 0 };
  const finished = new AbortController();
  const notes = inputNotes(model);
  const { onPassedOver, onDecoded } = notes;
  const found = apartFrom(findImages(settings.inputs, { stdin, nul: settings.nul, onPassedOver }), claims);
  const fresh = results.done ? notDone(found, results.done, () => counts.skipped++) : found;
  const loaded = until(
    loadImages(fresh, model.inputShape, { crop: model.crop, onDecoded }),
    interruption.stop,
  );
  const { purifying } = settings;
  const counting = quiet
    ? undefined
    : countInputs(settings.inputs, AbortSignal.any([finished.signal, interruption.stop]), (n) => {
        total = n;
      }).catch(() => undefined);
  try {
    const classified = classifyImages(through(loaded), open, {
      ...deciding(settings),
      topK: settings.topK,
      order: settings.order,
      energy: settings.energy,
      seed: settings.noise === undefined ? settings.seed : undefined,
      signal: interruption.drop,
      ...(settings.concurrency === undefined ? {} : { concurrency: settings.concurrency }),
      ...(results.errors
        ? { onEvaluations: (records) => results.errors!.write(evaluationLines(records)) }
        : {}),
      onProgress: (now) => {
        last = now;
        reporter.progress(now, counts.skipped, total);
      },
    });
    for await (const result of classified) {
      if (!isFailure(result) && !result.decided) counts.undecided++;
      await results.write(purifying && !isFailure(result) ? { ...result, purify: purifying.method } : result);
      if (results.closed) break;
      notes.onResult(result);
    }
  } catch (error) {
    if (!interruption.drop.aborted || error !== interruption.drop.reason) throw error;
  } finally {
    finished.abort();
    await counting;
    await results.close();
  }
  const isNothing = last.images === 0 && interruption.status > 0;
  if (!results.closed && !isNothing)
    for (const line of [summary(last, counts), ...notes.sentences()]) reporter.log('info', line);
  return { failures: last.failures, readerGone: results.closed };
}

/** Seconds from which on a rate says something: less is shown as 0.0 s. */
const LEAST_SECONDS = 0.05;

/** What a run did, in one sentence; a rate only of images that were classified. */
function summary(
  { images, failures, evaluations, seconds }: Progress,
  { skipped, undecided }: { readonly skipped: number; readonly undecided: number },
): string {
  const classified = images - failures;
  if (images === 0)
    return skipped > 0
      ? `nothing left to do: ${several(skipped, 'image')} were done before`
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
  if (skipped > 0) parts.push(`${short(skipped)} were done before`);
  return parts.join(', ');
}

const several = (count: number, noun: string) => `${short(count)} ${noun}${count === 1 ? '' : 's'}`;

/**
 * Classifies what the settings name and writes the results. Returns the exit status: 0 all classified, 1 some
 * items failed, 130 interrupted (143 by SIGTERM).
 *
 * @throws UsageError, ModelError and the device's errors, which end the run.
 */
async function classifyInputs(settings: Settings, surroundings: Surroundings): Promise<number> {
  const { openModel, stdout, signals, reporter } = surroundings;
  const folder = await modelFolder(settings.model);
  const options = await modelOptions(settings);
  const claims = settings.dryRun ? undefined : await claimOutputs(settings);
  try {
    const opened = await opener(openModel, folder, options);
    const opening = process.uptime();
    const { name, candidates, levels, batchSize, slots } = opened.model;
    reporter.log(
      'debug',
      `${name}: ${candidates.length} candidates, ${levels.length} noise levels, batches of ${batchSize}, ${slots} images in flight`,
    );
    const interruption = interruptible(signals, () =>
      reporter.log('warn', 'interrupted; finishing the images in flight (once more to stop now)'),
    );
    let before: Purifier | undefined;
    try {
      checkModel(settings, opened.model);
      if (!claims) {
        const { model, open } = opened;
        const run = { settings, surroundings, folder, modelOptions: options, model, open };
        return await dryRun({ ...run, deciding: deciding(settings), opening });
      }
      before = await purifier(settings, openModel, folder, interruption.drop);
      const results = await openResults({
        settings,
        claims,
        stdout,
        reporter,
        labels: candidates.map(({ label }) => label),
        record: await classifyRecord(settings, opened.model, folder),
      });
      const running = { opened, purifier: before, results, claims, interruption };
      const { failures, readerGone } = await stream(settings, surroundings, running);
      if (interruption.status > 0) return interruption.status;
      return failures > 0 && !readerGone ? 1 : 0;
    } finally {
      interruption.release();
      before?.close();
      opened.close();
    }
  } finally {
    await claims?.release();
  }
}

export const classify: Subcommand<Settings> = {
  name: 'classify',
  summary: 'Classify images with a diffusion model: images in, one line each out.',
  operands: { '[INPUT...]': 'image files, folders, patterns or -' },
  usage: '[classify] [options] INPUT...',
  options: CLASSIFY,
  entryOptions: { Deciding: optionsOf(STRATEGIES) },
  help: HELP,
  usesDevice: true,
  read: readSettings,
  run: classifyInputs,
};
