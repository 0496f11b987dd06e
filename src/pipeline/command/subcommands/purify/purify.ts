// `purify`: images in, purified images out, and a line for each.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../../../../errors.ts';
import type { Model } from '../../../../graph/model.ts';
import { safeJson } from '../../../escaping.ts';
import { systemCode } from '../../../images/failures.ts';
import { fromModelInput } from '../../../images/pixels.ts';
import { DECODERS, loadItem } from '../../../node/load.ts';
import { systemPath } from '../../../node/system-path.ts';
import { mapOrdered, until } from '../../../stream/iterables.ts';
import { purifyImages, stepsBy } from '../../../stream/purify-images.ts';
import { type ImageItem, type ItemFailure, isFailure, type Progress } from '../../../types.ts';
import { type OptionName, readOptions, type Values } from '../../options/table.ts';
import { checkOutputFolder } from '../../shared/checks.ts';
import { evaluationRecord } from '../../shared/evaluation-record.ts';
import { writeForecast } from '../../shared/forecast.ts';
import { checkInputs, countInputs } from '../../shared/inputs.ts';
import { type Interruption, interruptible } from '../../shared/interruption.ts';
import { modelFolder } from '../../shared/model-folder.ts';
import { opener } from '../../shared/opened-model.ts';
import { type ClaimedFile, claimFile } from '../../shared/output-file.ts';
import { namedInputs, pngName } from '../../shared/output-names.ts';
import { writePng } from '../../shared/png-file.ts';
import { duration, short } from '../../shared/progress.ts';
import { timePurification } from '../../shared/purify-timing.ts';
import {
  checkPurifyingFlags,
  hostNoise,
  type PurifyingSettings,
  purifierOptions,
} from '../../shared/purifying.ts';
import { takeUp } from '../../shared/resume.ts';
import { type RunRecord, sameRun, writeRecord } from '../../shared/run-record.ts';
import { fileWriter, streamWriter, type Writer } from '../../shared/sinks.ts';
import type { Subcommand, Typed } from '../../shared/subcommand.ts';
import type { Surroundings } from '../../shared/surroundings.ts';
import { runTimeOf } from '../../shared/timing.ts';
import { type TensorFileWriter, tensorFileWriter } from './tensor-file.ts';

const PURIFY = [
  'model',
  'method',
  'steps',
  'eps',
  'norm',
  'stepSize',
  'stepSigmas',
  'tStar',
  'seed',
  'noise',
  'out',
  'tensors',
  'output',
  'resume',
  'dryRun',
  'timings',
  'null',
  'batch',
  'concurrency',
] as const satisfies readonly OptionName[];

/** A checked command line of `purify`. */
export interface PurifySettings
  extends Pick<
    Values<(typeof PURIFY)[number]>,
    'model' | 'tensors' | 'output' | 'resume' | 'dryRun' | 'timings' | 'batch' | 'concurrency' | 'seed'
  > {
  readonly inputs: readonly string[];
  readonly nul: boolean;
  readonly out: string;
  readonly purifying: PurifyingSettings;
}

const HELP = `
INPUT is an image file, a folder (with all beneath it), a pattern in quotes, or - for paths on standard input. Each image
is written to --out under its own name, keeping sub-folders of INPUT; any extension but .png gets .png appended.
Characters that a terminal would obey become _ in the name. For each image there is one line of JSON: path, image (the
file written), how far the image moved (linf and l2, for pixels in [0, 1]), evaluations of the network, method, seed,
model; and seconds with --timings.

Methods, with their defaults:
  lm-adam      5 steps of Adam at 0.1 on the denoising loss, sigma drawn from U(0.4, 0.6) (RDC's released code)
  lm-momentum  5 steps of 0.1 along the sign of the momentum, in a ball of 8/255 (RDC's paper); l2: a ball of 0.5
  lm-residual  the same without the network's Jacobian, at a third of the cost
  diffpure     noises to t* = 100 of 1000 and denoises step by step; EDM models by Heun's method from sigma 0.5

Examples:
  diffclass-stream purify photos/ --method lm-momentum --out purified/
  diffclass-stream purify photos/ --method diffpure --t-star cifar10-l2 --out purified/ --tensors purified.safetensors
`;

/** Checks a command line of `purify`. @throws UsageError, one sentence. */
function readSettings(inputs: readonly string[], typed: Typed): PurifySettings {
  const { null: nul, method, out, noise: noiseFile, ...values } = readOptions(PURIFY, typed);
  const { steps, eps, norm, stepSize, stepSigmas: sigmas, tStar, seed, ...rest } = values;
  if (method === undefined)
    throw new UsageError('--method is missing; choose one, such as --method lm-momentum');
  if (out === undefined) throw new UsageError('--out is missing; name the folder for the purified images');
  const purifying = { method, steps, eps, norm, stepSize, sigmas, tStar, seed, noiseFile };
  checkPurifyingFlags(purifying, '--');
  const all = nul && !inputs.includes('-') ? [...inputs, '-'] : inputs;
  checkInputs(all);
  if (rest.resume && rest.output === '-')
    throw new UsageError('--resume needs --output FILE to read what is done');
  if (rest.resume && rest.tensors !== undefined)
    throw new UsageError('--resume and --tensors exclude each other: tensors are written at the end, whole');
  return { ...rest, seed, purifying, out, nul, inputs: all };
}

/** An image with the name it is written under. */
interface Named extends ImageItem {
  readonly name: string;
}

/** Loads what the settings name, each with its name, but for what is done. */
function load(
  settings: PurifySettings,
  surroundings: Surroundings,
  shape: readonly [number, number, number],
  done: { has(path: string): boolean } | undefined,
  onSkip: () => void,
): AsyncIterable<Named | ItemFailure> {
  const fresh = async function* () {
    for await (const item of namedInputs(settings, surroundings))
      if (!isFailure(item) && done?.has(item.path)) onSkip();
      else yield item;
  };
  return mapOrdered(fresh(), DECODERS, async (item) => {
    if (isFailure(item)) return item;
    const loaded = await loadItem(item.image, shape);
    return isFailure(loaded) ? loaded : { ...loaded, name: item.name };
  });
}

interface Results {
  readonly lines: Writer;
  readonly tensors: TensorFileWriter | undefined;
}

/** Purifies everything and writes it; returns how many items failed. */
async function stream(
  settings: PurifySettings,
  surroundings: Surroundings,
  { model, open }: Awaited<ReturnType<typeof opener>>,
  noise: Float32Array | undefined,
  { lines, tensors }: Results,
  done: { has(path: string): boolean } | undefined,
  interruption: Interruption,
): Promise<number> {
  const { purifying, out, seed, concurrency, timings } = settings;
  const { reporter, quiet } = surroundings;
  const shape = model.inputShape;
  let skipped = 0;
  let total: number | undefined;
  let last: Progress = { images: 0, failures: 0, evaluations: 0, seconds: 0, imagesPerSecond: 0 };
  const finished = new AbortController();
  const counting = quiet
    ? undefined
    : countInputs(settings.inputs, AbortSignal.any([finished.signal, interruption.stop]), (n) => {
        total = n;
      }).catch(() => undefined);
  const images = until(
    load(settings, surroundings, shape, done, () => skipped++),
    interruption.stop,
  );
  try {
    const purified = purifyImages(images, open, {
      ...purifying,
      noise,
      concurrency,
      signal: interruption.drop,
      onProgress: (now) => {
        last = now;
        reporter.progress(now, skipped, total);
      },
    });
    for await (const result of purified) {
      if (isFailure(result)) {
        reporter.log('warn', `${result.path}: ${result.error.message}`);
        await lines.write(`${safeJson(result)}\n`);
      } else {
        const image = join(out, pngName(result.name));
        await writePng(image, fromModelInput(result.pixels, shape));
        await tensors?.add(result.name, result.pixels, shape);
        const { model: name, seconds, ...moved } = result.purification;
        const line = {
          path: result.path,
          image,
          ...moved,
          ...(timings ? { seconds } : {}),
          method: purifying.method,
          seed,
          model: name,
        };
        await lines.write(`${safeJson(line)}\n`);
      }
      if (lines.closed) break;
    }
  } catch (error) {
    if (!interruption.drop.aborted || error !== interruption.drop.reason) throw error;
  } finally {
    finished.abort();
    await counting;
  }
  await tensors?.finish();
  if (!lines.closed) reporter.log('info', summary(last, skipped));
  return last.failures;
}

function summary({ images, failures, seconds }: Progress, skipped: number): string {
  const purified = images - failures;
  const parts = [`${short(purified)} images purified in ${duration(seconds)}`];
  if (purified > 0 && seconds > 0) parts.push(`${short(purified / seconds)} images/s`);
  if (failures > 0) parts.push(`${short(failures)} failed`);
  if (skipped > 0) parts.push(`${short(skipped)} were done before`);
  return parts.join(', ');
}

/** Says how long purifying will take. */
async function dryRun(settings: PurifySettings, surroundings: Surroundings, folder: string): Promise<number> {
  const { purifying } = settings;
  let images = 0;
  for await (const item of namedInputs(settings, surroundings)) if (!isFailure(item)) images++;
  const start = process.uptime();
  const timed = await timePurification(purifying, settings, images, folder, surroundings.openModel);
  try {
    const { model, steps, timing, seconds, once } = timed;
    const forecast = {
      model,
      images,
      work: { text: `${steps} steps of ${purifying.method} per image`, data: { steps } },
      timed: `${timing.runs} times ${timing.units} images at once`,
      time: runTimeOf(images, seconds, start + once),
    };
    await writeForecast(surroundings.stdout, forecast, false);
    return 0;
  } finally {
    timed.close();
  }
}

/**
 * Purifies what the settings name. Returns the exit status: 0 all purified, 1 some items failed, 130 interrupted
 * (143 by SIGTERM), with everything that was finished by then written.
 *
 * @throws UsageError, ModelError, UnsupportedError and the device's errors, which end the run.
 */
async function purifyInputs(settings: PurifySettings, surroundings: Surroundings): Promise<number> {
  const { openModel, signals, reporter } = surroundings;
  const { purifying, out, output, tensors, inputs } = settings;
  const folder = await modelFolder(settings.model);
  if (settings.dryRun) return dryRun(settings, surroundings, folder);
  await checkOutputFolder('--out', out);
  const options = await purifierOptions(purifying, settings);
  const claims: ClaimedFile[] = [];
  const claim = async (path: string, option: '--output' | '--tensors') => {
    const claimed = await claimFile(path, { option, inputs, binary: option === '--tensors' });
    claims.push(claimed);
    return claimed;
  };
  let opened: Awaited<ReturnType<typeof opener>> | undefined;
  let interruption: Interruption | undefined;
  let lines: Writer | undefined;
  let tensorFile: TensorFileWriter | undefined;
  try {
    const file = output === '-' ? undefined : await claim(output, '--output');
    if (tensors !== undefined) await claim(tensors, '--tensors');
    opened = await opener(openModel, folder, options);
    interruption = interruptible(signals, () =>
      reporter.log('warn', 'interrupted; finishing the images in flight (once more to stop now)'),
    );
    const noise = await hostNoise(purifying, opened.model);
    stepsBy(opened.model, { ...purifying, noise });
    const record = await recordOf(settings, opened.model, folder);
    const results = await openLines(file, settings.resume, surroundings, record);
    lines = results.lines;
    await mkdir(systemPath(out), { recursive: true }).catch((error: unknown) => {
      throw new UsageError(`--out: ${out} cannot be made (${systemCode(error) ?? error})`);
    });
    tensorFile = tensors === undefined ? undefined : await tensorFileWriter(tensors);
    const failures = await stream(
      settings,
      surroundings,
      opened,
      noise,
      { lines, tensors: tensorFile },
      results.done,
      interruption,
    );
    if (interruption.status > 0) return interruption.status;
    return failures > 0 && !lines.closed ? 1 : 0;
  } finally {
    interruption?.release();
    await lines?.close();
    await tensorFile?.close();
    opened?.close();
    for (const claimed of claims) await claimed.release();
  }
}

/** What the lines depend on. */
async function recordOf(
  { purifying: { noiseFile, ...purification }, seed }: PurifySettings,
  model: Model,
  folder: string,
): Promise<RunRecord> {
  return {
    ...(await evaluationRecord({ seed, noise: noiseFile, loss: undefined }, model, folder)),
    purify: JSON.stringify(purification),
  };
}

/** Opens what lines are written to, and takes up what it holds if `resume` says so. */
async function openLines(
  file: ClaimedFile | undefined,
  resume: boolean,
  { stdout, reporter }: Surroundings,
  record: RunRecord,
): Promise<{ readonly lines: Writer; readonly done: { has(path: string): boolean } | undefined }> {
  if (!file) return { lines: streamWriter(stdout), done: undefined };
  const warn = (text: string) => reporter.log('warn', text);
  const earlier = resume
    ? await takeUp(file.path, 'jsonl', { check: await sameRun(file.path, record, warn) })
    : undefined;
  const lines = await fileWriter(file.path, resume);
  if (file.isFile) await writeRecord(file.path, record);
  return { lines, done: earlier?.done };
}

export const purify: Subcommand<PurifySettings> = {
  name: 'purify',
  summary: 'Remove adversarial perturbations from images with a diffusion model.',
  operands: { '[INPUT...]': 'image files, folders, patterns or -' },
  usage: '--method NAME --out FOLDER [options] INPUT...',
  options: PURIFY,
  help: HELP,
  usesDevice: true,
  read: readSettings,
  run: purifyInputs,
};
