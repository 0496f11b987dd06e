// Does memory stay flat with ordinary RxJS operators in front of classify? Sends images through map, filter and tap into
// a classifier with a fake model, and prints how much the resident memory grows after the first tenth of the images.
//
//   npm run bench -- operator-memory [options]

import { filter, map, tap } from 'rxjs';
import { openClassifier } from '../src/index.ts';
import { classify, pulled } from '../src/operators.ts';
import { fakeModel, images } from '../test/pipeline/fake-model.ts';
import { openBench } from './run.ts';

const { values, record } = openBench('operator-memory', {
  images: { type: 'string', default: '100000', help: 'images that pass through the operators' },
});
const total = Number(values.images);

const fake = fakeModel({ levels: 1, candidates: 2, batchSize: 256, slots: 64 });
// The fake model records every batch and every encoded image, which would grow here.
const model = { ...fake, batches: { push: () => 0 }, encoded: { push: () => 0 } };
const classifier = await openClassifier(async () => model as unknown as typeof fake);
let seen = 0;
let first = 0;
let most = 0;
await new Promise<void>((resolve, reject) => {
  pulled(images(0, total))
    .pipe(
      map((item) => ({ ...item, pixels: item.pixels.slice() })),
      filter(({ path }) => path !== ''),
      tap(() => undefined),
      classify(classifier),
    )
    .subscribe({
      next() {
        if (++seen % 1000 !== 0) return;
        const resident = process.memoryUsage.rss() / 2 ** 20;
        if (seen * 10 <= total) first = Math.max(first, resident);
        most = Math.max(most, resident);
      },
      error: reject,
      complete: resolve,
    });
});
record({ images: seen, firstMiB: first, mostMiB: most });
console.log(
  `${seen} images: ${first.toFixed(0)} MiB resident in the first tenth, ${most.toFixed(0)} MiB at most (${(most - first).toFixed(0)} more)`,
);
await classifier.close();
