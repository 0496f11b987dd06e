// Do many users of one classifier get the throughput and the results of a single stream? Classifies the same images with
// one stream, and with 8 streams and 64 single calls at once; then compares the time of a single image with the time of
// its network runs.
//
//   npm run bench -- many-users [options]

import { type Classified, type ImageItem, openClassifier, openModel } from '../src/index.ts';
import { median } from '../src/numbers.ts';
import { openBench } from './run.ts';
import { DATA, readTestSet, streamed } from './test-set.ts';

const { values, record } = openBench('many-users', {
  model: { type: 'string', default: 'fashion-mnist-multi-head', help: 'a model folder, or a shipped model' },
  data: { type: 'string', default: DATA, help: 'a folder with the test split as IDX files' },
  images: { type: 'string', default: '2048', help: 'images of the test split' },
  rounds: { type: 'string', default: '3', help: 'repetitions of each measurement' },
});

const bytes = ({ seconds: _, ...result }: Classified) => JSON.stringify(result);

const classifier = await openClassifier(values.model);
const { images } = readTestSet(values.data, Number(values.images), 0);
const results = new Map<string, string>();
let different = 0;

/** Classifies images as one stream, and checks every result. */
async function stream(part: readonly ImageItem[]): Promise<void> {
  for await (const result of classifier.classifyAll(streamed({ images: part }))) {
    if ('error' in result) throw new Error(result.error.message);
    check(result);
  }
}

/** Compares a result with the first one of its image, and counts it in `different` if they differ. */
function check(result: Classified): void {
  const text = bytes(result);
  const before = results.get(result.path) ?? text;
  if (before !== text) different++;
  results.set(result.path, before);
}

async function perSecond(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await run();
  return (1000 * images.length) / (performance.now() - start);
}

await stream(images.slice(0, 128));
const rates: { one: number[]; many: number[] } = { one: [], many: [] };
for (let round = 0; round < Number(values.rounds); round++) {
  rates.one.push(await perSecond(() => stream(images)));
  const singles = images.slice(0, 64);
  const rest = images.slice(64);
  const size = Math.ceil(rest.length / 8);
  rates.many.push(
    await perSecond(() =>
      Promise.all([
        ...Array.from({ length: 8 }, (_, k) => stream(rest.slice(k * size, (k + 1) * size))),
        ...singles.map(async (image) => check(await classifier.classify(image))),
      ]),
    ),
  );
}
record({ name: 'images per second', ...rates, different });
console.log(
  `${images.length} images: ${median(rates.one).toFixed(1)} images/s with one stream, ${median(rates.many).toFixed(1)} with 8 streams and 64 calls at once (${(median(rates.many) / median(rates.one)).toFixed(2)} times); ${different} results differ`,
);

const model = await openModel(values.model);
model.encode(0, images[0]!.pixels);
const candidate = Uint32Array.from(model.candidates.keys());
/** Runs the network once for an image at a level, as the sequential strategy does. */
const evaluate = (level: number) =>
  model.errors({
    candidate,
    slot: new Uint32Array(candidate.length),
    level: new Uint32Array(candidate.length).fill(level),
    noise: new Uint32Array(candidate.length).fill(level),
  });
const ratios: number[] = [];
const alone: number[] = [];
for (const image of images.slice(0, 100)) {
  let start = performance.now();
  const result = await classifier.classify(image);
  alone.push(performance.now() - start);
  const rounds = result.top[0]!.evaluations;
  start = performance.now();
  for (let level = 0; level < rounds; level++) await evaluate(level);
  ratios.push(alone.at(-1)! / (performance.now() - start));
}
record({ name: 'single images', ms: alone, ratios });
console.log(
  `single images, warm: ${median(alone).toFixed(1)} ms each, ${median(ratios).toFixed(2)} times the time of their network runs alone`,
);
model.close();
await classifier.close();
