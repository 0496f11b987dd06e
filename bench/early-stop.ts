// How do shared noise and early stopping change robust accuracy? Attacks test images with APGD, which knows the noise,
// once on the whole grid of levels and once on the quarter that is visited first. Then classifies the clean and the
// adversarial images again: on the whole grid, with the sequential strategy, on fewer levels, and, for models that
// evaluate each class on its own, with different noise for every class.
//
//   npm run bench -- earlystop [options]

import { attackAndJudge, diffusionClassifier } from '../src/attacks.ts';
import { all, classifyImages, type OpenModelOptions, openModel } from '../src/index.ts';
import { toUnit } from '../src/pipeline/images/pixels.ts';
import { type Figures, measure } from './end-to-end.ts';
import { openBench } from './run.ts';
import { DATA, readTestSet, streamed, type TestSet, wilson } from './test-set.ts';

const { values, record } = openBench('earlystop', {
  model: { type: 'string', default: 'weights/fashion-mnist', help: 'a model folder' },
  data: { type: 'string', default: DATA, help: 'a folder with the test split as IDX files' },
  images: { type: 'string', default: '64', help: 'images that are attacked' },
  start: { type: 'string', default: '0', help: 'number of the first image' },
  eps: { type: 'string', default: '0.02', help: 'size of the perturbation (linf), for pixels in [0, 1]' },
  steps: { type: 'string', default: '20', help: 'steps of APGD' },
  levels: {
    type: 'string',
    help: 'the whole grid is the first of these many levels that the model visits, instead of all of them',
  },
});
const count = Number(values.images);
const clean = readTestSet(values.data, count, Number(values.start));
const eps = Number(values.eps);

/** Selects a share of the grid, starting with the level that is visited first. */
const firstLevels = (share: number): OpenModelOptions => ({
  levels: ({ levels }) => {
    const whole =
      values.levels === undefined ? levels.length : Math.min(Number(values.levels), levels.length);
    return levels.slice(0, Math.max(1, Math.round(whole * share)));
  },
});
const grid = firstLevels(1);

/** Attacks the classifier with these options. `multiHead`: one network run gives the errors of all classes. */
async function attackImages(options: OpenModelOptions): Promise<TestSet & { readonly multiHead: boolean }> {
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
  const attacks = clean.images.map(async ({ path, pixels }, i) => {
    const image = { x: toUnit(pixels), label: clean.labels[i]!, key: path };
    const outcome = await attackAndJudge(campaign, plan, image);
    return { path, pixels: Float32Array.from(outcome.x, (v) => 2 * v - 1) };
  });
  const images = await Promise.all(attacks);
  model.close();
  return { images, labels: clean.labels, multiHead: model.differentiable?.viewGradients !== undefined };
}

/** Counts the images that are classified correctly if every class has its own noise: one model per class and seed. */
async function correctWithOwnNoise(set: TestSet): Promise<number> {
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
  return errors.filter((perClass, i) => perClass.indexOf(Math.min(...perClass)) === labels[i]).length;
}

const whole = await attackImages(grid);
const sets = [clean, whole, await attackImages(firstLevels(1 / 4))];
console.log(
  `${values.model}, ${count} images from ${values.start}, APGD-CE with ${values.steps} steps, linf ${eps}, 95 % intervals`,
);
console.log(
  '| classified | clean | attacked on the whole grid | attacked on its first quarter | evaluations per image |',
);
console.log('|---|---|---|---|---|');

const percent = ({ accuracy, interval: [low, high] }: Pick<Figures, 'accuracy' | 'interval'>): string =>
  `${accuracy.toFixed(1)} % (${low.toFixed(1)} to ${high.toFixed(1)})`;

for (const [name, options] of [
  ['on the whole grid', { exhaustive: true, model: grid }],
  ['on the whole grid, different noise', { exhaustive: true, model: { ...grid, seed: 1 } }],
  ['on its first quarter', { exhaustive: true, model: firstLevels(1 / 4) }],
  ['sequential, confidence 0.999', { confidence: 0.999, model: grid }],
  ['sequential, default confidence', { model: grid }],
  ['sequential, confidence 0.9', { confidence: 0.9, model: grid }],
] as const) {
  const figures = [];
  for (const set of sets) figures.push(await measure(values.model, set, options));
  record({ name, figures });
  const shares = figures.map(percent).join(' | ');
  console.log(`| ${name} | ${shares} | ${figures.map((f) => f.evaluationsAnImage.toFixed(1)).join(', ')} |`);
}
if (!whole.multiHead) {
  const shares = [];
  const correct: number[] = [];
  for (const set of sets) {
    const right = await correctWithOwnNoise(set);
    correct.push(right);
    shares.push(percent({ accuracy: (100 * right) / count, interval: wilson(right, count) }));
  }
  record({ name: 'on the whole grid, different noise for every class', correct, images: count });
  console.log(`| on the whole grid, different noise for every class | ${shares.join(' | ')} | |`);
}
