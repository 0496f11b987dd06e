// `npm run demo`: classifies the shipped samples with the shipped model, and draws them. `demo` shows how the library is
// used; the rest is drawing.

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

/** Width of a picture in columns, without and with its margin. */
const COLUMNS = 22;
const CELL = COLUMNS + 3;

const terminal = process.stdout.isTTY === true;
const perRow = Math.max(1, Math.floor((terminal ? (process.stdout.columns ?? 80) : 100) / CELL));
const style = (code: number, text: string) => (terminal ? `\x1b[${code}m${text}\x1b[0m` : text);
const say = (text: string) => process.stdout.write(`${text}\n`);

const percent = (probability: number) => `${(probability * 100).toFixed(probability > 0.9995 ? 0 : 1)} %`;
const slug = (text: string) => text.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');

/** Returns the class in the file name of a sample, such as `0007-ankle-boot.png`; undefined if there is none. */
function truthOf(path: string, model: Model): string | undefined {
  const name = /^\d+-(.+)\.[a-z]+$/.exec(path.split(/[/\\]/).at(-1) ?? '')?.[1];
  return model.candidates.find(({ label }) => slug(label) === name)?.label;
}

/** Draws an image above its two most probable classes. */
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

/** Passes images on and keeps each of them in `seen`, so that it can be drawn next to its result. */
async function* remembering(items: AsyncIterable<ImageItem | ItemFailure>, seen: Map<string, ImageItem>) {
  for await (const item of items) {
    if (!isFailure(item)) seen.set(item.path, item);
    yield item;
  }
}

/** Says how right and how fast the results were, and what all evaluations would have been. */
function sumUp(results: readonly Classified[], seconds: number, model: Model): void {
  const { candidates, levels } = model;
  const images = results.length;
  const known = results.filter(({ path }) => truthOf(path, model) !== undefined);
  const right = known.filter(({ path, label }) => truthOf(path, model) === label);
  const sum = (of: (result: Classified) => number) => results.reduce((total, one) => total + of(one), 0);
  const evaluations = sum((result) => result.evaluations);
  const compared = sum(({ top }) => top[0]!.evaluations) / images;
  const exhaustive = images * candidates.length * levels.length;
  const score = known.length > 0 ? `; ${right.length} of ${known.length} right` : '';
  say(`${images} images in ${seconds.toFixed(1)} s, ${short(images / seconds)} images/s${score}.`);
  say(
    `${short(evaluations)} evaluations at ${short(compared)} noise levels per image; all ` +
      `${candidates.length} classes at all ${levels.length} levels would have been ${short(exhaustive)}.`,
  );
  say(`Now your own: npx diffclass-stream FOLDER   (npx diffclass-stream --help)`);
}

async function demo(folder: string, samples: string): Promise<void> {
  const began = performance.now();
  const reporter = createReporter(process.stderr, 'info');
  const model = await openModel(folder, {
    device: { driverCall: await silentDriver() },
    onCompile: reporter.compiling,
    onTune: reporter.tuning,
  });
  reporter.clear();
  const ready = performance.now();
  const size = `${model.candidates.length} classes, ${model.levels.length} noise levels`;
  say(`${style(1, model.name)}: ${size}, ready in ${((ready - began) / 1000).toFixed(1)} s.\n`);

  const seen = new Map<string, ImageItem>();
  const images = remembering(loadImages(findImages([samples]), model.inputShape), seen);
  const results: Classified[] = [];
  const row: string[][] = [];
  const draw = () => {
    for (const line of sideBySide(row.splice(0), CELL)) say(line);
  };
  for await (const result of classifyImages(images, async () => model)) {
    if (isFailure(result)) {
      say(printable(`${result.path}: ${result.error.message}`));
      continue;
    }
    results.push(result);
    row.push(cell(result, seen.get(result.path)!, model));
    seen.delete(result.path);
    if (row.length === perRow) draw();
  }
  draw();
  if (results.length === 0) throw new UsageError(`${samples} has no images to show`);
  sumUp(results, (performance.now() - ready) / 1000, model);
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
