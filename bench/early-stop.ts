// What do shared noise and early stopping do to robust accuracy? Attacks test images with APGD, noise known, once on
// the whole grid and once on the quarter of it that is visited first. Then decides the clean and the adversarial images
// anew: on the whole grid, by the sequential strategy, on fewer levels, and, where each class has evaluations of its
// own, with other noise for every class.
//
//   npm run bench -- earlystop [--model DIR] [--images 64] [--start 0] [--eps 0.02] [--steps 20] [--levels N]
//
// --levels: the whole grid is the first N levels that the model visits, not all of its own.

import { parseArgs } from 'node:util';
import { attackAndJudge, diffusionClassifier } from '../src/attacks.ts';
import { all, classifyImages, type OpenModelOptions, openModel } from '../src/index.ts';
import { toUnit } from '../src/pipeline/images/pixels.ts';
import { type Figures, measure } from './end-to-end.ts';
import { DATA, readTestSet, streamed, type TestSet, wilson } from './test-set.ts';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'weights/fashion-mnist' },
    data: { type: 'string', default: DATA },
    images: { type: 'string', default: '64' },
    start: { type: 'string', default: '0' },
    eps: { type: 'string', default: '0.02' },
    steps: { type: 'string', default: '20' },
    levels: { type: 'string' },
  },
});
const count = Number(values.images);
const clean = readTestSet(values.data, count, Number(values.start));
const eps = Number(values.eps);

/** A share of the grid, from the level that is visited first. */
const firstLevels = (share: number): OpenModelOptions => ({
  levels: ({ levels }) => {
    const whole =
      values.levels === undefined ? levels.length : Math.min(Number(values.levels), levels.length);
    return levels.slice(0, Math.max(1, Math.round(whole * share)));
  },
});
const grid = firstLevels(1);

/** Adversarial images of the classifier that visits the levels given, and whether one run gives all its classes. */
async function attacked(options: OpenModelOptions): Promise<TestSet & { readonly multiHead: boolean }> {
  const model = await openModel(values.model, options);
  const judge = diffusionClassifier(model);
  const campaign = {
    attacked: judge,
    judge,
    seed: 0,
    norm: 'linf',
    eps,
    eot: 1,
    randomness: 'known',
  } as const;
  const plan = { attack: 'apgd-ce', steps: Number(values.steps), restarts: 1 } as const;
  const found = clean.images.map(async ({ path, pixels }, i) => {
    const victim = { x: toUnit(pixels), label: clean.labels[i]!, key: path };
    const outcome = await attackAndJudge(campaign, plan, victim);
    return { path, pixels: Float32Array.from(outcome.x, (v) => 2 * v - 1) };
  });
  const images = await Promise.all(found);
  model.close();
  return { images, labels: clean.labels, multiHead: model.differentiable?.viewGradients !== undefined };
}

/** Images that are right where every class is judged by noise of its own, each class opened with its own seed. */
async function unshared(set: TestSet): Promise<number> {
  const { images, labels } = set;
  const errors: number[][] = images.map(() => []);
  const first = Number(images[0]!.path);
  for (let classidx = 0; classidx < 10; classidx++) {
    const model = await openModel(values.model, {
      ...grid,
      seed: 1000 + classidx,
      candidates: ({ labels }) => [{ label: labels[classidx]!, classidx }],
    });
    for await (const result of classifyImages(streamed(set), async () => model, { strategy: all() })) {
      if ('error' in result) throw new Error(`${result.path}: ${result.error.message}`);
      errors[Number(result.path) - first]![classidx] = result.top[0]!.error;
    }
  }
  return errors.filter((of, i) => of.indexOf(Math.min(...of)) === labels[i]).length;
}

const whole = await attacked(grid);
const sets = [clean, whole, await attacked(firstLevels(1 / 4))];
console.log(
  `${values.model}, ${count} images from ${values.start}, APGD-CE ${values.steps} steps, linf ${eps}, 95 % intervals`,
);
console.log('| decided | clean | attacked on the whole grid | on its first quarter | evaluations an image |');
console.log('|---|---|---|---|---|');

const percent = ({ accuracy, interval: [low, high] }: Pick<Figures, 'accuracy' | 'interval'>): string =>
  `${accuracy.toFixed(1)} % (${low.toFixed(1)} to ${high.toFixed(1)})`;

for (const [name, options] of [
  ['on the whole grid', { exhaustive: true, model: grid }],
  ['on the whole grid, other noise', { exhaustive: true, model: { ...grid, seed: 1 } }],
  ['on its first quarter', { exhaustive: true, model: firstLevels(1 / 4) }],
  ['sequential, confidence 0.999', { confidence: 0.999, model: grid }],
  ['sequential, its default', { model: grid }],
  ['sequential, confidence 0.9', { confidence: 0.9, model: grid }],
] as const) {
  const found = [];
  for (const set of sets) found.push(await measure(values.model, set, options));
  const shares = found.map(percent).join(' | ');
  console.log(`| ${name} | ${shares} | ${found.map((f) => f.evaluationsAnImage.toFixed(1)).join(', ')} |`);
}
if (!whole.multiHead) {
  const found = [];
  for (const set of sets) {
    const right = await unshared(set);
    found.push(percent({ accuracy: (100 * right) / count, interval: wilson(right, count) }));
  }
  console.log(`| on the whole grid, other noise for every class | ${found.join(' | ')} | |`);
}
