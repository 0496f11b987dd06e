// Which images are unlike those that a model was trained on? Fits `familiar` of a model's card to held-out training
// images, and measures how often test images are flagged (false alarms) and how many images of other kinds are.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Familiar, Model } from '../src/index.ts';
import { openModel } from '../src/index.ts';
import { distanceOf } from '../src/pipeline/deciding/familiarity.ts';
import { prepareImage } from '../src/pipeline/images/prepare.ts';
import { readRecords } from '../src/pipeline/node/record-files.ts';
import { fitClasses, type LabelledErrors, thresholdOf } from './fit-familiar.ts';
import { randomUniform } from './random.ts';
import { openBench } from './run.ts';
import { wilson } from './test-set.ts';

interface Image {
  readonly pixels: Float32Array;
  readonly label: number;
}

/** Reads images of an IDX file or a CIFAR batch; `text` is FILE[:START[:COUNT]]. */
async function readImages(text: string, shape: Model['inputShape']): Promise<Image[]> {
  const [file = '', start = '0', count = 'Infinity'] = text.split(':');
  const images: Image[] = [];
  for await (const { index, label, pixels } of readRecords(file)) {
    if (index < Number(start)) continue;
    if (images.length >= Number(count)) break;
    images.push({ label, pixels: prepareImage(pixels, shape) });
  }
  return images;
}

/** The label of images that belong to no class. */
const NO_LABEL = -1;

/** Returns synthetic images and distorted test images, by kind. */
function unfamiliarImages(test: readonly Image[], length: number): Readonly<Record<string, Image[]>> {
  const next = randomUniform(1);
  const gauss = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  const make = (count: number, value: (image: number) => () => number) =>
    Array.from({ length: count }, (_, i) => {
      const values = value(i);
      return {
        label: NO_LABEL,
        pixels: Float32Array.from({ length }, () => Math.max(-1, Math.min(1, values()))),
      };
    });
  const some = test.slice(0, 500);
  const shuffled = ({ pixels }: Image) => {
    const mixed = [...pixels];
    for (let i = mixed.length - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [mixed[i], mixed[j]] = [mixed[j]!, mixed[i]!];
    }
    return { label: NO_LABEL, pixels: Float32Array.from(mixed) };
  };
  return {
    'constant grey': make(256, (i) => () => (2 * i) / 255 - 1),
    'uniform noise': make(200, () => () => 2 * next() - 1),
    'gaussian noise': make(200, () => () => 0.5 * gauss()),
    'test, inverted': some.map(({ pixels }) => ({ label: NO_LABEL, pixels: pixels.map((v) => -v) })),
    'test, shuffled': some.slice(0, 200).map(shuffled),
    'test, as [0, 1]': some.map(({ pixels }) => ({
      label: NO_LABEL,
      pixels: pixels.map((v) => (v + 1) / 2),
    })),
  };
}

/** Returns the errors of all classes at a model's only level. By default every image has its own noise. */
async function errorsOf(model: Model, images: readonly Image[], noise = (image: number) => image) {
  const classes = model.candidates.length;
  const at = Math.max(1, Math.min(model.slots, Math.floor(model.batchSize / classes)));
  const rows: LabelledErrors[] = [];
  for (let from = 0; from < images.length; from += at) {
    const part = images.slice(from, from + at);
    for (const [slot, { pixels }] of part.entries()) model.encode(slot, pixels);
    const index = <T extends number>(of: (i: number) => T) =>
      Uint32Array.from({ length: part.length * classes }, (_, i) => of(i));
    const errors = await model.errors({
      slot: index((i) => Math.floor(i / classes)),
      candidate: index((i) => i % classes),
      level: index(() => 0),
      noise: index((i) => noise(from + Math.floor(i / classes))),
    });
    for (const [i, { label }] of part.entries())
      rows.push({ label, errors: errors.slice(i * classes, (i + 1) * classes) });
  }
  return rows;
}

/** Returns the probability that an unfamiliar image has a larger distance than a familiar one. */
function auroc(familiar: readonly number[], others: readonly number[]): number {
  const sorted = [...familiar].sort((a, b) => a - b);
  let sum = 0;
  for (const value of others) {
    let low = 0;
    for (let high = sorted.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (sorted[middle]! < value) low = middle + 1;
      else high = middle;
    }
    sum += low / sorted.length;
  }
  return sum / others.length;
}

const { values, record } = openBench('familiar', {
  model: { type: 'string', default: 'weights/fashion-mnist-multi-head', help: 'a model folder' },
  'held-out': {
    type: 'string',
    default: '/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz:56000',
    help: 'held-out training images with labels, as FILE[:START[:COUNT]]',
  },
  test: {
    type: 'string',
    default: '/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz',
    help: 'test images, as FILE[:START[:COUNT]]',
  },
  other: {
    type: 'string',
    multiple: true,
    default: [],
    help: 'images of another kind, as NAME=FILE[:START[:COUNT]]; may be repeated',
  },
  rate: { type: 'string', default: '0.01', help: 'share of held-out images beyond the threshold' },
  write: { type: 'boolean', default: false, help: "write the threshold to the model's card" },
});

const cardFile = join(values.model, 'card.json');
const card = JSON.parse(readFileSync(cardFile, 'utf8'));
// The level that the default strategy visits first, where it evaluates every image in all classes.
const level = card.sigmas ? { sigma: card.sigmas[0] as number } : { t: card.timesteps[0] as number };
const model = await openModel(values.model, { levels: () => [{ ...level, weight: 1 }] });
const shape = model.inputShape;
// One half of the images fits the classes, the other half fits the threshold.
const heldOut = await errorsOf(model, await readImages(values['held-out'], shape));
const fitted = heldOut.filter((_, i) => i % 2 === 0);
const distances = (rows: readonly LabelledErrors[], of: Pick<Familiar, 'means' | 'precision'>) =>
  rows.map(({ errors }) => distanceOf(errors, of));
const digits = (rows: readonly (readonly number[])[], count: number) =>
  rows.map((row) => row.map((value) => Number(value.toPrecision(count))));
const { means, precision } = fitClasses(fitted);
const rounded = { means: digits(means, 6), precision: digits(precision, 6) };
const rest = heldOut.filter((_, i) => i % 2 === 1);
const falseAlarms = Number(values.rate);
const threshold = Number(thresholdOf(distances(rest, rounded), falseAlarms).toPrecision(5));
const familiar: Familiar = { ...level, ...rounded, threshold, falseAlarms };
console.log(
  `${model.name}: ${JSON.stringify(level)}, threshold ${threshold} from ${rest.length} of ${heldOut.length} images`,
);

const test = await readImages(values.test, shape);
const testDistances = distances(await errorsOf(model, test), familiar);
const beyond = (all: readonly number[]) => all.filter((distance) => distance > threshold).length;
const percent = (count: number, n: number) => {
  const [low, high] = wilson(count, n);
  return `${((100 * count) / n).toFixed(2)} % of ${n} (95 %: ${low.toFixed(2)} to ${high.toFixed(2)})`;
};
record({ name: 'test images', threshold, flagged: beyond(testDistances), images: test.length });
console.log(`false alarms, test images: ${percent(beyond(testDistances), test.length)}`);
const few = test.slice(0, 1000);
for (const k of [0, 1, 2]) {
  const same = distances(await errorsOf(model, few, () => k), familiar);
  console.log(`  all with noise ${k}: ${percent(beyond(same), few.length)}`);
}
const otherImages: Record<string, readonly Image[]> = {
  ...unfamiliarImages(
    test,
    shape.reduce((a, b) => a * b, 1),
  ),
};
for (const text of values.other) {
  const [name = '', file = ''] = text.split('=');
  otherImages[name] = await readImages(file, shape);
}
for (const [name, images] of Object.entries(otherImages)) {
  const others = distances(await errorsOf(model, images), familiar);
  record({ name, auroc: auroc(testDistances, others), flagged: beyond(others), images: others.length });
  console.log(
    `${name.padEnd(16)} AUROC ${auroc(testDistances, others).toFixed(3)}, flagged ${percent(beyond(others), others.length)}`,
  );
}
model.close();
if (values.write) {
  const lines = Object.entries({ ...card, familiar }).map(
    ([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`,
  );
  writeFileSync(cardFile, `{\n${lines.join(',\n')}\n}\n`);
  console.log(`wrote ${cardFile}`);
}
