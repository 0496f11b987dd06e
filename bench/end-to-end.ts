// How many images per second does the whole pipeline classify, with how many evaluations per image, and how many of them
// correctly? Runs on a test split, from pixels in memory to verdicts.

import { all, classifyImages, type OpenModelOptions, openModel, sequential } from '../src/index.ts';
import { openBench } from './run.ts';
import { DATA, readTestSet, streamed, type TestSet, wilson } from './test-set.ts';

export interface Figures {
  readonly images: number;
  readonly accuracy: number;
  readonly interval: readonly [number, number];
  readonly evaluationsAnImage: number;
  /** Noise levels that an image is compared at, on average; a multi-head network runs once per level. */
  readonly levelsAnImage: number;
  readonly imagesASecond: number;
  readonly msAnEvaluation: number;
  readonly undecided: number;
}

/** Classifies a test set with the default strategy, or exhaustively. The time does not include opening the model. */
export async function measure(
  folder: string,
  set: TestSet,
  options: {
    readonly exhaustive?: boolean;
    readonly confidence?: number;
    readonly model?: OpenModelOptions;
  } = {},
): Promise<Figures> {
  const { images, labels } = set;
  const model = await openModel(folder, options.model);
  const strategy = options.exhaustive
    ? all()
    : sequential(options.confidence === undefined ? {} : { confidence: options.confidence });
  const first = Number(images[0]?.path ?? 0);
  let right = 0;
  let evaluations = 0;
  let levels = 0;
  let undecided = 0;
  const started = performance.now();
  for await (const result of classifyImages(streamed(set), async () => model, { strategy })) {
    if ('error' in result) throw new Error(`${result.path}: ${result.error.message}`);
    if (result.classidx === labels[Number(result.path) - first]) right++;
    if (!result.decided) undecided++;
    evaluations += result.evaluations;
    levels += result.top[0]!.evaluations;
  }
  const seconds = (performance.now() - started) / 1000;
  const n = images.length;
  return {
    images: n,
    accuracy: (100 * right) / n,
    interval: wilson(right, n),
    evaluationsAnImage: evaluations / n,
    levelsAnImage: levels / n,
    imagesASecond: n / seconds,
    msAnEvaluation: (1000 * seconds) / evaluations,
    undecided,
  };
}

/** Returns the figures as a line of text. */
export function line(name: string, f: Figures): string {
  const [low, high] = f.interval;
  return `${name.padEnd(12)} ${f.accuracy.toFixed(2)} % of ${f.images} (95 %: ${low.toFixed(2)} to ${high.toFixed(2)}), ${f.evaluationsAnImage.toFixed(1)} evaluations at ${f.levelsAnImage.toFixed(2)} noise levels and ${(1000 / f.imagesASecond).toFixed(1)} ms per image, ${f.imagesASecond.toFixed(2)} images/s, ${f.msAnEvaluation.toFixed(2)} ms per evaluation`;
}

/** Runs `npm run bench -- end-to-end [--images N] [--exhaustive] ...`. */
export async function main(): Promise<void> {
  const { values, record } = openBench('end-to-end', {
    model: { type: 'string', default: 'weights/fashion-mnist', help: 'a model folder' },
    data: { type: 'string', default: DATA, help: 'a folder with the test split as IDX files' },
    images: { type: 'string', default: '500', help: 'images of the test split' },
    start: { type: 'string', default: '0', help: 'number of the first image' },
    confidence: { type: 'string', help: 'confidence of the sequential strategy' },
    batch: { type: 'string', help: 'evaluations per batch' },
    exhaustive: { type: 'boolean', default: false, help: 'also evaluate every class at every level' },
  });
  const set = readTestSet(values.data, Number(values.images), Number(values.start));
  const model = values.batch === undefined ? {} : { model: { batchSize: Number(values.batch) } };
  const confidence = values.confidence === undefined ? {} : { confidence: Number(values.confidence) };
  const report = (name: string, figures: Figures): void => {
    record({ name, ...figures });
    console.log(line(name, figures));
  };
  report('sequential', await measure(values.model, set, { ...model, ...confidence }));
  if (values.exhaustive)
    report('exhaustive', await measure(values.model, set, { ...model, exhaustive: true }));
}
