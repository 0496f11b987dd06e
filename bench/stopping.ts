// How many evaluations do the strategies need until an image is decided? Runs them over errors that were recorded
// exhaustively, and prints accuracy, evaluations and agreement with the exhaustive answer.
//
//   npm run bench -- stopping [errors.f32 labels.u8] [options]
//
// errors.f32: [images][classes][levels] in little-endian float32, with ascending timesteps; labels.u8: one byte per
// image. Without arguments it uses a synthetic classifier of the same shape.

import { readFile } from 'node:fs/promises';
import type { EvaluationBatch, Level, Model } from '../src/graph/model.ts';
import { visitingOrder } from '../src/graph/visiting.ts';
import { classifyImages } from '../src/pipeline/classifying/classify-images.ts';
import { all } from '../src/pipeline/deciding/all.ts';
import { sequential } from '../src/pipeline/deciding/sequential.ts';
import { staged } from '../src/pipeline/deciding/staged.ts';
import { variance } from '../src/pipeline/deciding/statistics.ts';
import type { Strategy } from '../src/pipeline/deciding/trial.ts';
import { type ImageItem, isFailure } from '../src/pipeline/types.ts';
import { randomUniform } from './random.ts';
import { openBench } from './run.ts';

/** Errors of every image, class and level, and the true classes. */
interface Recorded {
  readonly errors: Float32Array;
  readonly labels: Uint8Array;
  readonly classes: number;
  readonly levels: number;
}

/** Reads recorded errors and labels; as many images as both files hold. */
async function recorded(
  errorsFile: string,
  labelsFile: string,
  classes: number,
  levels: number,
): Promise<Recorded> {
  const [errors, labels] = await Promise.all([readFile(errorsFile), readFile(labelsFile)]);
  const images = Math.min(labels.length, Math.floor(errors.length / 4 / classes / levels));
  return {
    errors: new Float32Array(errors.buffer, errors.byteOffset, images * classes * levels).slice(),
    labels: labels.subarray(0, images),
    classes,
    levels,
  };
}

/**
 * Returns the errors of a linear-Gaussian model. The prediction for class c is off by a vector whose length depends on
 * class and level, so a gap m has noise of variance 4 m e / D (e: error, D: pixels), as it does for real denoisers.
 */
function synthetic(images = 2000, classes = 10, levels = 24): Recorded {
  const errors = new Float32Array(images * classes * levels);
  const labels = new Uint8Array(images);
  const random = randomUniform(1);
  const uniform = (): number => random() + 2 ** -33; // never 0, whose logarithm is infinite
  const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  for (let i = 0; i < images; i++) {
    const label = Math.floor(uniform() * classes);
    labels[i] = label;
    const hardness = Math.exp(normal());
    const distance = Array.from({ length: classes }, (_, c) =>
      c === label ? 0 : hardness * Math.exp(1.3 * normal()),
    );
    for (let l = 0; l < levels; l++) {
      const t = (l + 0.5) / levels;
      const common = 0.9 * Math.exp(-4 * t) + 0.02;
      const profile = t * (1 - t) * Math.exp(-3 * t);
      for (let c = 0; c < classes; c++) {
        const gap = 0.01 * distance[c]! * profile;
        errors[(i * classes + c) * levels + l] =
          common + gap + Math.sqrt((4 * gap * common) / 784) * normal();
      }
    }
  }
  return { errors, labels, classes, levels };
}

/** Returns a model that looks its errors up; the first pixel of an image is the image's number. */
function recordedModel({ errors, classes, levels }: Recorded, order: readonly number[]): Model {
  const slots = 512;
  const held = new Uint32Array(slots);
  const grid = order.map((l): Level => ({ t: l, weight: 1 }));
  return {
    name: 'recorded',
    inputShape: [1, 1, 1],
    candidates: Array.from({ length: classes }, (_, c) => ({ label: `${c}`, classidx: c })),
    levels: grid,
    batchSize: 4096,
    slots,
    temperature: 0.001,
    encode: (slot, image) => {
      held[slot] = image[0]!;
    },
    errors: async ({ slot, candidate, level }: EvaluationBatch) =>
      Float32Array.from(
        slot,
        (s, i) => errors[(held[s]! * classes + candidate[i]!) * levels + order[level[i]!]!]!,
      ),
    close: () => {},
  };
}

async function* numbered(count: number): AsyncGenerator<ImageItem> {
  for (let i = 0; i < count; i++) yield { path: `${i}`, pixels: new Float32Array([i]) };
}

interface Outcome {
  readonly labels: readonly number[];
  readonly evaluations: readonly number[];
}

async function outcome(data: Recorded, strategy: Strategy): Promise<Outcome> {
  const labels: number[] = [];
  const evaluations: number[] = [];
  const model = recordedModel(data, visitingOrder(data.levels));
  for await (const result of classifyImages(numbered(data.labels.length), async () => model, { strategy })) {
    if (isFailure(result)) throw new Error(result.error.message);
    labels[Number(result.path)] = result.classidx;
    evaluations[Number(result.path)] = result.evaluations;
  }
  return { labels, evaluations };
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const percent = (hits: readonly boolean[]): string =>
  `${(100 * mean(hits.map(Number))).toFixed(2).padStart(6)} %`;

const confidences = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];
const { values, positionals, record } = openBench(
  'stopping',
  {
    classes: { type: 'string', default: '10', help: 'classes of the recorded errors' },
    levels: { type: 'string', default: '24', help: 'noise levels of the recorded errors' },
    kappa: { type: 'string', help: 'noise-to-signal scale of error gaps; by default measured on the errors' },
  },
  '[errors.f32 labels.u8]',
);
const [errorsFile, labelsFile] = positionals;
const data =
  errorsFile && labelsFile
    ? await recorded(errorsFile, labelsFile, Number(values.classes), Number(values.levels))
    : synthetic();

/** Returns variance / mean over the levels of the difference to the best class: the median over images and classes. */
function kappaOf({ errors, labels, classes, levels }: Recorded): number {
  const at = (image: number, c: number, l: number): number => errors[(image * classes + c) * levels + l]!;
  const ratios: number[] = [];
  for (let image = 0; image < labels.length; image++) {
    const total = (c: number): number => mean(Array.from({ length: levels }, (_, l) => at(image, c, l)));
    const totals = Array.from({ length: classes }, (_, c) => total(c));
    const best = totals.indexOf(Math.min(...totals));
    for (let c = 0; c < classes; c++) {
      if (c === best) continue;
      const gaps = Array.from({ length: levels }, (_, l) => at(image, c, l) - at(image, best, l));
      ratios.push(variance(gaps) / mean(gaps));
    }
  }
  return ratios.sort((a, b) => a - b)[Math.floor(ratios.length / 2)]!;
}

const exhaustive = await outcome(data, all());
const half = Math.floor(data.levels / 2);
const quarter = Math.floor(data.levels / 4);
const kappa = Number(values.kappa) || kappaOf(data);
const strategies: readonly (readonly [string, Strategy])[] = [
  ['all', all()],
  ...confidences.map((confidence) => [`kappa ${confidence}`, sequential({ confidence, kappa })] as const),
  ...confidences.map((confidence) => [`t-test ${confidence}`, sequential({ confidence })] as const),
  [
    `staged ${quarter},${data.levels} keeping 5,1`,
    staged({ nSamples: [quarter, data.levels], toKeep: [5, 1] }),
  ],
  [
    `staged 3,${half},${data.levels} keeping 5,2,1`,
    staged({ nSamples: [3, half, data.levels], toKeep: [5, 2, 1] }),
  ],
];
console.log(
  `${data.labels.length} images, ${data.classes} classes, ${data.levels} levels, kappa ${kappa.toPrecision(3)}`,
);
console.log('strategy                         accuracy  agreement  evaluations  of all  median  max');
for (const [name, strategy] of strategies) {
  const actual = await outcome(data, strategy);
  const sorted = [...actual.evaluations].sort((a, b) => a - b);
  const spent = mean(actual.evaluations);
  const correct = actual.labels.filter((label, i) => label === data.labels[i]).length;
  const agreeing = actual.labels.filter((label, i) => label === exhaustive.labels[i]).length;
  record({ name, images: data.labels.length, correct, agreeing, evaluations: spent });
  console.log(
    [
      name.padEnd(32),
      percent(actual.labels.map((label, i) => label === data.labels[i])),
      percent(actual.labels.map((label, i) => label === exhaustive.labels[i])),
      spent.toFixed(1).padStart(10),
      `1/${((data.classes * data.levels) / spent).toFixed(2)}`.padStart(8),
      String(sorted[Math.floor(sorted.length / 2)]).padStart(6),
      String(sorted.at(-1)).padStart(5),
    ].join('  '),
  );
}
