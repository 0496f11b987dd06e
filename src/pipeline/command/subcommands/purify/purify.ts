// `purify`: images in, purified images out, and a line for each.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../../../../errors.ts';
import type { Model } from '../../../../graph/model.ts';
import { safeJson } from '../../../escaping.ts';
import { fromModelInput } from '../../../images/pixels.ts';
import { DECODERS, loadItem } from '../../../node/load.ts';
import { systemPath } from '../../../node/system-path.ts';
import type { OptionValues } from '../../../option.ts';
import { PURIFICATIONS } from '../../../purifying/methods.ts';
import { mapOrdered, until } from '../../../stream/iterables.ts';
import { purifyImages } from '../../../stream/purify-images.ts';
import { isFailure, type Progress } from '../../../types.ts';
import { purificationOptions } from '../../options/purify-options.ts';
import { type OptionName, readOptions } from '../../options/table.ts';
import { evaluationRecord } from '../../shared/evaluation-record.ts';
import { writeForecast } from '../../shared/forecast.ts';
import { countFound, inputsOf } from '../../shared/inputs.ts';
import type { Interruption } from '../../shared/interruption.ts';
import { modelFolder } from '../../shared/model-folder.ts';
import { type OpenedPurification, openPurification } from '../../shared/opened-model.ts';
import { checkResume } from '../../shared/option-checks.ts';
import { checkOutputFolder } from '../../shared/output-checks.ts';
import { namedInputs, pngName } from '../../shared/output-names.ts';
import { duration, several, short } from '../../shared/progress.ts';
import { readPurifying } from '../../shared/purify-settings.ts';
import { timePurification } from '../../shared/purify-timing.ts';
import { refusing } from '../../shared/refusing.ts';
import { type OpenOutput, openOutput } from '../../shared/resumable-output.ts';
import {
  interruptedText,
  type Run,
  type RunOutcome,
  runCommand,
  untilDropped,
} from '../../shared/run-command.ts';
import type { RunRecord } from '../../shared/run-record.ts';
import { followProgress } from '../../shared/stream-progress.ts';
import type { Subcommand, Surroundings } from '../../shared/subcommand.ts';
import { runTimeOf } from '../../shared/timing.ts';
import { writePng } from '../../shared/whole-files.ts';
import { type TensorFileWriter, tensorFileWriter } from './tensor-file.ts';

const PURIFY = [
  'model',
  'method',
  'seed',
  'noise',
  'out',
  'tensors',
  'output',
  'lineFormat',
  'resume',
  'dryRun',
  'timings',
  'null',
  'maxPixels',
  'batch',
  'concurrency',
] as const satisfies readonly OptionName[];

/** A checked command line of `purify`. */
type PurifySettings = ReturnType<typeof readSettings>;

/** A line of help for each method. */
const METHOD_LINES = PURIFICATIONS.map(({ name, summary }) => `  ${name.padEnd(11)}  ${summary}`).join('\n');

const HELP = `
INPUT is an image file, a folder (with its sub-folders), a pattern in quotes, or - for paths on standard input. Each image
is written to --out under its own name, keeping sub-folders of INPUT; any extension but .png gets .png appended.
Characters that a terminal would obey become _ in the name. For each image there is one line of JSON: path, image (the
file written), how far the image moved (linf and l2, for pixels in [0, 1]), evaluations of the network, method, seed,
model; and seconds with --timings.

Methods, with their defaults:
${METHOD_LINES}

Examples:
  diffclass-stream purify photos/ --method lm-momentum --out purified/
  diffclass-stream purify photos/ --method diffpure --t-star cifar10-l2 --out purified/ --tensors purified.safetensors
`;

function readSettings(inputs: readonly string[], typed: OptionValues) {
  const { null: nul, method, out, noise: noiseFile, ...values } = readOptions(PURIFY, typed);
  if (method === undefined)
    throw new UsageError('--method is missing; choose one, such as --method lm-momentum');
  if (out === undefined) throw new UsageError('--out is missing; name the folder for the purified images');
  const purifying = readPurifying(method, '--', typed, { seed: values.seed, noiseFile });
  const all = inputsOf(inputs, nul);
  checkResume(values);
  if (values.resume && values.tensors !== undefined)
    throw new UsageError('--resume and --tensors exclude each other: tensors are written at the end, whole');
  return { ...values, purifying, out, nul, inputs: all };
}

/** Loads the inputs, each with the name of its image in --out, except those that an earlier run has finished. */
function load(
  settings: PurifySettings,
  surroundings: Surroundings,
  shape: readonly [number, number, number],
  done: { has(path: string): boolean } | undefined,
  onSkip: () => void,
) {
  const fresh = async function* () {
    for await (const item of namedInputs(settings, surroundings))
      if (!isFailure(item) && done?.has(item.path)) onSkip();
      else yield item;
  };
  return mapOrdered(fresh(), DECODERS, async (item) => {
    if (isFailure(item)) return item;
    const loaded = await loadItem(item.image, shape, { maxPixels: settings.maxPixels });
    return isFailure(loaded) ? loaded : { ...loaded, name: item.name };
  });
}

/** Purifies all images and writes them. */
async function purifyAll(
  settings: PurifySettings,
  surroundings: Surroundings,
  { model, open, noise }: OpenedPurification,
  { writer, done }: OpenOutput,
  tensors: TensorFileWriter | undefined,
  interruption: Interruption,
  run: Run,
): Promise<RunOutcome> {
  const { purifying, inputs, out, seed, concurrency, timings } = settings;
  const { reporter } = surroundings;
  const shape = model.inputShape;
  const progress = followProgress(inputs, surroundings, interruption.stop, run);
  const images = until(load(settings, surroundings, shape, done, progress.onSkip), interruption.stop);
  await untilDropped(interruption, async () => {
    const purified = purifyImages(images, open, {
      ...purifying,
      noise,
      concurrency,
      signal: interruption.drop,
      onProgress: progress.onProgress,
    });
    for await (const result of purified) {
      if (isFailure(result)) {
        reporter.log('warn', `${result.path}: ${result.error.message}`);
        await writer.write(`${safeJson(result)}\n`);
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
        await writer.write(`${safeJson(line)}\n`);
      }
      if (writer.closed) break;
    }
  });
  await tensors?.finish();
  const { last, skipped } = progress;
  if (!writer.closed) reporter.log('info', summary(last, skipped));
  return { failures: last.failures, readerGone: writer.closed };
}

function summary({ images, failures, seconds }: Progress, skipped: number): string {
  const purified = images - failures;
  const parts = [`${several(purified, 'image')} purified in ${duration(seconds)}`];
  if (purified > 0 && seconds > 0) parts.push(`${short(purified / seconds)} images/s`);
  if (failures > 0) parts.push(`${short(failures)} failed`);
  if (skipped > 0) parts.push(`${short(skipped)} done before`);
  return parts.join(', ');
}

/** Says how long purifying will take. */
async function dryRun(
  settings: PurifySettings,
  surroundings: Surroundings,
  folder: string,
  run: Run,
): Promise<RunOutcome> {
  const { purifying } = settings;
  const images = await countFound(namedInputs(settings, surroundings));
  const start = process.uptime();
  const timed = await timePurification(purifying, settings, images, folder, surroundings.openModel);
  run.atEnd(timed.close);
  const { model, steps, timing, seconds, once } = timed;
  const forecast = {
    model,
    images,
    work: { text: `${steps} steps of ${purifying.method} per image`, data: { steps } },
    timed: `${timing.runs} times ${timing.units} images at once`,
    time: runTimeOf(images, seconds, start + once),
  };
  return writeForecast(surroundings.stdout, forecast, settings.lineFormat);
}

/** Purifies the inputs, and writes the images and a line for each. */
const purifyInputs = (settings: PurifySettings, surroundings: Surroundings): Promise<number> =>
  runCommand(surroundings, async (run) => {
    const { purifying, out, output, tensors, inputs, resume } = settings;
    const folder = await modelFolder(settings.model);
    if (settings.dryRun) return dryRun(settings, surroundings, folder, run);
    await checkOutputFolder('--out', out);
    const file = await run.claim(output, { option: '--output', inputs });
    if (tensors !== undefined) await run.claim(tensors, { option: '--tensors', inputs, binary: true });
    const opened = await openPurification(purifying, settings, folder, surroundings.openModel);
    run.atEnd(opened.close);
    const interruption = run.listen(interruptedText('the images in flight'));
    const record = await recordOf(settings, opened.model, folder);
    const lines = await openOutput(file, { format: 'jsonl', resume }, record, surroundings);
    run.atEnd(lines.writer.close);
    await mkdir(systemPath(out), { recursive: true }).catch(refusing(`--out: ${out} cannot be made`));
    const tensorFile = tensors === undefined ? undefined : await tensorFileWriter(tensors);
    if (tensorFile) run.atEnd(tensorFile.close);
    return purifyAll(settings, surroundings, opened, lines, tensorFile, interruption, run);
  });

/** Returns the settings that the lines depend on. */
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

export const purify: Subcommand<PurifySettings> = {
  name: 'purify',
  summary: 'Remove adversarial perturbations from images with a diffusion model.',
  operands: { '[INPUT...]': 'image files, folders, patterns or -' },
  usage: '--method NAME --out FOLDER [options] INPUT...',
  options: PURIFY,
  entryOptions: { Purifying: purificationOptions('--') },
  help: HELP,
  usesDevice: true,
  read: readSettings,
  run: purifyInputs,
};
