// The main job of the command line: images in, one line each out.

import type { Description } from '../../graph/describe.ts';
import type { Model } from '../../graph/model.ts';
import type { OpenModelOptions } from '../../graph/openmodel.ts';
import { classifyImages } from '../classify-images.ts';
import { all } from '../deciding/all.ts';
import { sequential } from '../deciding/sequential.ts';
import { staged } from '../deciding/staged.ts';
import type { Strategy } from '../deciding/trial.ts';
import { loadImages } from '../images/load.ts';
import { findImages } from '../images/sources.ts';
import type { ClassifyOptions } from '../operators/classify-options.ts';

import { until } from '../stream/iterables.ts';
import { purifyImages, stepsBy } from '../stream/purify.ts';
import { type ImageItem, type ItemFailure, isFailure, type Progress } from '../types.ts';
import { dryRun } from './dryrun.ts';
import { evaluationLines, headerOf, lineOf } from './format.ts';
import { inputNotes } from './input-notes.ts';
import { type Interruption, interruptible, type SignalSource } from './interruption.ts';
import { checkModel, modelOptions, type OpenFolder } from './modelchoice.ts';
import { modelFolder } from './modelfolder.ts';
import { duration, type Reporter, short } from './progress.ts';
import { hostNoise, purifierOptions } from './purifying.ts';
import { dropTornLine, notDone, takeUp } from './resume.ts';
import type { Settings } from './settings.ts';
import { fileWriter, type Output, streamWriter, type Writer } from './sinks.ts';

/** What a run takes from outside. */
export interface Surroundings {
  readonly openModel: OpenFolder;
  /** Describes a model folder: `describeModel` of the graph, or a fake of it. */
  readonly describe: (folder: string, options?: OpenModelOptions) => Promise<Description>;
  readonly stdin: AsyncIterable<Uint8Array>;
  readonly stdout: Output;
  readonly signals: SignalSource;
  readonly reporter: Reporter;
}

/** The strategy and the budget of settings. */
function deciding(settings: Settings): Pick<ClassifyOptions, 'strategy' | 'budget'> {
  const { budget } = settings;
  return { strategy: strategyOf(settings), ...(budget === undefined ? {} : { budget }) };
}

function strategyOf({ strategy, nSamples, toKeep, confidence }: Settings): Strategy {
  switch (strategy) {
    case 'all':
      return all();
    case 'staged':
      return staged({ nSamples: nSamples ?? [], toKeep: toKeep ?? [] });
    case 'sequential':
      return sequential(confidence === undefined ? {} : { confidence });
    default:
      return strategy satisfies never;
  }
}

/** Opens a model at once, so that its faults show before any output is touched, and again when asked to. */
export async function opener(openModel: OpenFolder, folder: string, options: OpenModelOptions) {
  const model = await openModel(folder, options);
  let unused: Model | undefined = model;
  const open = async (wanted?: { readonly batchSize: number }) => {
    const first = unused;
    unused = undefined;
    return first ?? openModel(folder, { ...options, ...wanted });
  };
  /** Closes the model unless somebody has taken it over. */
  const close = () => unused?.close();
  return { model, open, close };
}

/** Counts the images of the inputs in a walk of its own, for the ETA; never what comes by standard input. */
export async function count(
  settings: Pick<Settings, 'quiet' | 'inputs'>,
  stop: AbortSignal,
  tell: (total: number) => void,
): Promise<void> {
  if (settings.quiet || settings.inputs.includes('-')) return;
  let total = 0;
  for await (const _ of until(findImages(settings.inputs, { namesOnly: true }), stop)) total++;
  if (!stop.aborted) tell(total);
}

interface Writers {
  readonly results: Writer;
  readonly errors: Writer | undefined;
}

async function openWriters(
  settings: Settings,
  stdout: Output,
  earlierBytes: number | undefined,
): Promise<Writers> {
  const { output, format, energy, errors } = settings;
  const append = earlierBytes !== undefined;
  const results = output === '-' ? streamWriter(stdout) : await fileWriter(output, append);
  if (append && errors !== undefined) await dropTornLine(errors);
  const log = errors === undefined ? undefined : await fileWriter(errors, append);
  const header = earlierBytes ? '' : headerOf(format, energy);
  if (header) await results.write(header);
  return { results, errors: log };
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
  signal: AbortSignal,
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

/** Everything between the opened model and the last line; returns how many items failed. */
async function stream(
  settings: Settings,
  { stdin, stdout, reporter }: Surroundings,
  { model, open }: Awaited<ReturnType<typeof opener>>,
  { through }: Purifier,
  interruption: Interruption,
): Promise<{ readonly failures: number; readonly readerGone: boolean }> {
  const earlier = settings.resume
    ? await takeUp(settings.output, settings.format, settings.energy)
    : undefined;
  const { results, errors } = await openWriters(settings, stdout, earlier?.bytes);
  let skipped = 0;
  let total: number | undefined;
  let last: Progress = { images: 0, failures: 0, evaluations: 0, seconds: 0, imagesPerSecond: 0 };
  const finished = new AbortController();
  const notes = inputNotes(model);
  const { onPassedOver, onDecoded } = notes;
  const found = findImages(settings.inputs, { stdin, nul: settings.nul, onPassedOver });
  const fresh = earlier ? notDone(found, earlier.done, () => skipped++) : found;
  const loaded = until(
    loadImages(fresh, model.inputShape, { crop: model.crop, onDecoded }),
    interruption.stop,
  );
  const { purifying } = settings;
  const counting = count(settings, AbortSignal.any([finished.signal, interruption.stop]), (n) => {
    total = n;
  }).catch(() => undefined);
  try {
    const classified = classifyImages(through(loaded), open, {
      ...deciding(settings),
      topK: settings.topK,
      energy: settings.energy,
      seed: settings.noise === undefined ? settings.seed : undefined,
      signal: interruption.drop,
      ...(settings.concurrency === undefined ? {} : { concurrency: settings.concurrency }),
      ...(errors ? { onEvaluations: (records) => errors.write(evaluationLines(records)) } : {}),
      onProgress: (now) => {
        last = now;
        reporter.progress(now, skipped, total);
      },
    });
    for await (const result of classified) {
      const line = purifying && !isFailure(result) ? { ...result, purify: purifying.method } : result;
      await results.write(lineOf(line, settings.format));
      if (results.closed) break;
      notes.onResult(result);
      if (isFailure(result)) reporter.log('debug', `${result.path}: ${result.error.message}`);
    }
  } catch (error) {
    if (!interruption.drop.aborted || error !== interruption.drop.reason) throw error;
  } finally {
    finished.abort();
    await counting;
    await results.close();
    await errors?.close();
  }
  if (!results.closed)
    for (const line of [summary(last, skipped), ...notes.sentences()]) reporter.log('info', line);
  return { failures: last.failures, readerGone: results.closed };
}

function summary({ images, failures, evaluations, seconds }: Progress, skipped: number): string {
  const classified = images - failures;
  const parts = [`${short(classified)} images classified in ${duration(seconds)}`];
  if (seconds > 0) parts.push(`${short(images / seconds)} images/s`);
  if (classified > 0) parts.push(`${short(evaluations / classified)} evaluations an image`);
  if (failures > 0) parts.push(`${short(failures)} failed`);
  if (skipped > 0) parts.push(`${short(skipped)} were done before`);
  return parts.join(', ');
}

/**
 * Classifies what the settings name and writes the results. Returns the exit status: 0 all classified, 1 some
 * items failed, 130 interrupted (143 by SIGTERM).
 *
 * @throws UsageError, ModelError and the device's errors, which end the run.
 */
export async function run(settings: Settings, surroundings: Surroundings): Promise<number> {
  const { openModel, signals, reporter } = surroundings;
  const folder = await modelFolder(settings.model);
  const options = await modelOptions(settings);
  const opened = await opener(openModel, folder, options);
  const opening = process.uptime();
  const { name, candidates, levels, batchSize, slots } = opened.model;
  const interruption = interruptible(signals, () =>
    reporter.log('warn', 'interrupted; finishing the images in flight (once more to stop now)'),
  );
  reporter.log(
    'debug',
    `${name}: ${candidates.length} candidates, ${levels.length} noise levels, batches of ${batchSize}, ${slots} images in flight`,
  );
  let before: Purifier | undefined;
  try {
    checkModel(settings, opened.model);
    if (settings.dryRun) {
      const { model, open } = opened;
      const run = { settings, surroundings, folder, modelOptions: options, model, open };
      return await dryRun({ ...run, deciding: deciding(settings), opening });
    }
    before = await purifier(settings, openModel, folder, interruption.drop);
    const { failures, readerGone } = await stream(settings, surroundings, opened, before, interruption);
    if (interruption.status > 0) return interruption.status;
    return failures > 0 && !readerGone ? 1 : 0;
  } finally {
    interruption.release();
    before?.close();
    opened.close();
  }
}
