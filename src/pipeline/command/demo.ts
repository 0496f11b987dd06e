// `npm run demo`: the shipped samples through the shipped model, with pictures. What it does with the library
// is the middle of `demo`; the rest is drawing.

import { join } from 'node:path';
import { UsageError } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import { openModel } from '../../graph/node/open-model.ts';
import { classifyImages } from '../classifying/classify-images.ts';
import { printable } from '../escaping.ts';
import { fromModelInput } from '../images/pixels.ts';
import { loadImages } from '../node/load.ts';
import { findImages } from '../node/sources.ts';
import { type Classified, type ImageItem, type ItemFailure, isFailure } from '../types.ts';
import { picture, sideBySide } from './picture.ts';
import { silentDriver } from './shared/driver-messages.ts';
import { describeError, statusOf } from './shared/exit-status.ts';
import { DEFAULT_MODEL, SHIPPED } from './shared/model-folder.ts';
import { createReporter, short } from './shared/progress.ts';

/** Columns of a picture, and of a picture with its margin. */
const COLUMNS = 22;
const CELL = COLUMNS + 3;

const terminal = process.stdout.isTTY === true;
const perRow = Math.max(1, Math.floor((terminal ? (process.stdout.columns ?? 80) : 100) / CELL));
const style = (code: number, text: string) => (terminal ? `\x1b[${code}m${text}\x1b[0m` : text);
const say = (text: string) => process.stdout.write(`${text}\n`);

const percent = (probability: number) => `${(probability * 100).toFixed(probability > 0.9995 ? 0 : 1)} %`;
const slug = (text: string) => text.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');

/** The class that a sample's file name tells after its number, as in `0007-ankle-boot.png`; if it does. */
function truthOf(path: string, model: Model): string | undefined {
  const name = /^\d+-(.+)\.[a-z]+$/.exec(path.split(/[/\\]/).at(-1) ?? '')?.[1];
  return model.candidates.find(({ label }) => slug(label) === name)?.label;
}

/** The picture of an image above what it was taken for. */
function cell(result: Classified, item: ImageItem, model: Model): string[] {
  const truth = truthOf(result.path, model);
  const wrong = truth !== undefined && truth !== result.label;
  const mark = wrong ? style(31, ' \u2717') : truth === undefined ? '' : style(32, ' \u2713');
  const runnerUp = result.top[1];
  return [
    ...picture(fromModelInput(item.pixels, model.inputShape), COLUMNS, terminal),
    `${style(1, result.label)} ${percent(result.probability)}${mark}`,
    style(2, runnerUp ? `or ${runnerUp.label} ${percent(runnerUp.probability)}` : ''),
    style(2, `${result.evaluations} evaluations`),
    ...(wrong ? [style(31, `is ${truth}`)] : []),
    '',
  ];
}

/** Remembers images on their way in, so that they can be drawn when they come out. */
async function* remembering(items: AsyncIterable<ImageItem | ItemFailure>, seen: Map<string, ImageItem>) {
  for await (const item of items) {
    if (!isFailure(item)) seen.set(item.path, item);
    yield item;
  }
}

interface Totals {
  images: number;
  evaluations: number;
  /** Noise levels at which images were compared. */
  levels: number;
  known: number;
  right: number;
}

function add(totals: Totals, result: Classified, model: Model): void {
  const truth = truthOf(result.path, model);
  totals.images++;
  totals.evaluations += result.evaluations;
  totals.levels += result.top[0]!.evaluations;
  if (truth !== undefined) totals.known++;
  if (truth === result.label) totals.right++;
}

function closing(totals: Totals, seconds: number, model: Model): void {
  const { images, evaluations, levels, known, right } = totals;
  const exhaustive = images * model.candidates.length * model.levels.length;
  say(
    `${images} images in ${seconds.toFixed(1)} s, ${short(images / seconds)} a second${known > 0 ? `; ${right} of ${known} right` : ''}.`,
  );
  say(
    `${short(evaluations)} evaluations at ${short(levels / images)} noise levels per image; all ` +
      `${model.candidates.length} classes at all ${model.levels.length} levels would have been ${short(exhaustive)}.`,
  );
  say(`Now your own: npx diffclass-stream FOLDER   (npx diffclass-stream --help)`);
}

async function demo(folder: string, samples: string): Promise<void> {
  const began = performance.now();
  const reporter = createReporter(process.stderr, 'info');
  const model = await openModel(folder, {
    device: { driverCall: await silentDriver() },
    onCompile: reporter.compiling,
  });
  reporter.clear();
  const ready = performance.now();
  const size = `${model.candidates.length} classes, ${model.levels.length} noise levels`;
  say(`${style(1, model.name)}: ${size}, ready in ${((ready - began) / 1000).toFixed(1)} s.\n`);

  const seen = new Map<string, ImageItem>();
  const images = remembering(loadImages(findImages([samples]), model.inputShape), seen);
  const totals: Totals = { images: 0, evaluations: 0, levels: 0, known: 0, right: 0 };
  const row: string[][] = [];
  const draw = () => {
    for (const line of sideBySide(row.splice(0), CELL)) say(line);
  };
  for await (const result of classifyImages(images, async () => model)) {
    if (isFailure(result)) {
      say(printable(`${result.path}: ${result.error.message}`));
      continue;
    }
    add(totals, result, model);
    row.push(cell(result, seen.get(result.path)!, model));
    seen.delete(result.path);
    if (row.length === perRow) draw();
  }
  draw();
  if (totals.images === 0) throw new UsageError(`${samples} has no images to show`);
  closing(totals, (performance.now() - ready) / 1000, model);
}

try {
  const folder = process.argv[2];
  const samples = folder ? join(folder, 'samples') : join(SHIPPED, 'fashion-mnist', 'samples');
  await demo(folder ?? join(SHIPPED, DEFAULT_MODEL), samples);
  process.exit(0);
} catch (error) {
  process.stderr.write(`demo: ${describeError(error)}\n`);
  process.exit(statusOf(error));
}
