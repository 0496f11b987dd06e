// `optimal`: makes a model folder of a labelled set of images, their optimal denoiser.

import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../../../errors.ts';
import { OPTIMAL_CLASS } from '../../../graph/families/optimal/optimal-family.ts';
import { writeSafetensors } from '../../../graph/node/write-safetensors.ts';
import { failureOf } from '../../images/failures.ts';
import { type Pixels, withChannels } from '../../images/pixels.ts';
import { resizeAndCrop } from '../../images/resize.ts';
import { classOf, findLabelled, type Labelled } from '../../node/labelled.ts';
import type { OptionValues } from '../../option.ts';
import { mapOrdered } from '../../stream/iterables.ts';
import { type ItemFailure, isFailure } from '../../types.ts';
import { type OptionName, readOptions } from '../options/table.ts';
import { nearest } from '../shared/candidates.ts';
import { checkOutputFolder } from '../shared/output-checks.ts';
import { short } from '../shared/progress.ts';
import { refusing } from '../shared/refusing.ts';
import type { Subcommand, Surroundings } from '../shared/subcommand.ts';
import { writeReport } from '../shared/writers.ts';

const OPTIMAL = ['labels', 'imageSize', 'perClass', 'reportFormat'] as const satisfies readonly OptionName[];

/** A checked command line of `optimal`. */
type OptimalSettings = ReturnType<typeof readSettings>;

const HELP = `
SET is a folder with a folder of images for each class, a CSV file with the columns path and label, an IDX file
(...-images-idx3-ubyte[.gz], with its labels next to it), or a CIFAR batch (....bin[.gz]). If the set has numbers for classes,
--labels names them in their order; otherwise classes keep the names that the set has for them.

OUT becomes a model folder (config.json and images.safetensors) whose network is the optimal denoiser of the images: for
a noised image it predicts the mean of the images that it may have been made of, as a diffusion model does after endless
training on them. It classifies, purifies and is attacked like any model; it knows nothing but its images.

Example:
  diffclass-stream optimal train-images-idx3-ubyte.gz optimal-mnist/ --per-class 100
  diffclass-stream digits/ --model optimal-mnist/
`;

const readSettings = ([set = '', out = '']: readonly string[], typed: OptionValues) => {
  return { ...readOptions(OPTIMAL, typed), set, out };
};

/** Returns the bytes of an image, plane by plane. */
function planes({ width, height, channels, data }: Pixels): Uint8Array {
  const plane = width * height;
  const out = new Uint8Array(channels * plane);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < plane; i++) out[c * plane + i] = data[i * channels + c]!;
  return out;
}

/** Returns the names of the classes: `names`, or else the labels in the order of their numbers or names. */
function classesOf(labels: ReadonlySet<string>, names: readonly string[] | undefined): readonly string[] {
  if (names) return names;
  const all = [...labels];
  return all.every((label) => /^\d+$/.test(label)) ? all.sort((a, b) => Number(a) - Number(b)) : all.sort();
}

/**
 * Makes the folder and reports what is in it. Returns the exit status: 0, or 1 if some images could not be read and are
 * missing.
 *
 * @throws UsageError if the set cannot be read, a label is not among --labels, or OUT is a model folder already.
 */
async function makeFolder(
  { set, out, labels: names, imageSize, perClass, reportFormat }: OptimalSettings,
  { stdout, reporter }: Surroundings,
): Promise<number> {
  const config = join(out, 'config.json');
  if (existsSync(config)) throw new UsageError(`${out}: is a model folder already (${config}); name another`);
  await checkOutputFolder('OUT', out);
  const read = async (item: Labelled | ItemFailure) => {
    if (isFailure(item)) return item;
    try {
      return { ...item, pixels: await item.pixels() };
    } catch (error) {
      return failureOf(item.path, error);
    }
  };
  let shape: readonly [channels: 1 | 3, height: number, width: number] | undefined;
  const rows: Uint8Array[] = [];
  const labels: { readonly path: string; readonly label: string }[] = [];
  let failed = 0;
  for await (const item of mapOrdered(findLabelled(set, { perClass }), 4, read)) {
    if (isFailure(item)) {
      failed++;
      reporter.log('warn', `${item.path}: ${item.error.message}`);
      continue;
    }
    const { channels, height, width } = item.pixels;
    shape ??= [channels, imageSize ?? height, imageSize ?? width];
    rows.push(planes(resizeAndCrop(withChannels(item.pixels, shape[0]), shape[2], shape[1], 'bicubic')));
    labels.push(item);
  }
  if (!shape) throw new UsageError(`${set}: none of its images can be read`);
  const classes = classesOf(new Set(labels.map(({ label }) => label)), names);
  const candidates = classes.map((label, classidx) => ({ label, classidx }));
  const numbers = labels.map(({ path, label }) => {
    const classidx = classOf(label, candidates);
    if (classidx === undefined)
      throw new UsageError(
        `${path}: the label "${label}" is none of --labels; the nearest is "${nearest(label, classes)}"`,
      );
    return classidx;
  });
  const missing = candidates.find(({ classidx }) => !numbers.includes(classidx));
  if (missing) throw new UsageError(`${set}: has no image of the class "${missing.label}"`);
  if (classes.length < 2)
    throw new UsageError(`${set}: expected two classes or more, got the one class "${classes[0]}"`);

  const length = rows[0]!.length;
  const images = new Uint8Array(rows.length * length);
  rows.forEach((row, i) => {
    images.set(row, i * length);
  });
  const refuse = refusing(`${out}: cannot be written`);
  await mkdir(out, { recursive: true }).catch(refuse);
  const tensors = [
    ['images', { dtype: 'U8', shape: [rows.length, ...shape], data: images }],
    ['labels', { dtype: 'I32', shape: [rows.length], data: Int32Array.from(numbers) }],
  ] as const;
  await writeSafetensors(join(out, 'images.safetensors'), tensors).catch(refuse);
  // The configuration comes last: a folder that has it is whole.
  const id2label = Object.fromEntries(classes.map((label, i) => [i, label]));
  const written = { _class_name: OPTIMAL_CLASS, data: 'images.safetensors', id2label };
  await writeFile(config, `${JSON.stringify(written, null, 2)}\n`).catch(refuse);
  const made = { model: out, images: rows.length, classes: classes.length, shape, failed };
  const text = `${out}: ${short(made.images)} images of ${short(made.classes)} classes, ${shape.join(' x ')}\n`;
  await writeReport(stdout, reportFormat, made, text);
  return failed > 0 ? 1 : 0;
}

export const optimal: Subcommand<OptimalSettings> = {
  name: 'optimal',
  summary: 'Make a model of labelled images: their optimal denoiser, in closed form.',
  operands: {
    '<SET>': 'labelled images: a folder of class folders, a CSV file, an IDX or a CIFAR file',
    '<OUT>': 'the model folder to make',
  },
  options: OPTIMAL,
  help: HELP,
  read: readSettings,
  run: makeFolder,
};
