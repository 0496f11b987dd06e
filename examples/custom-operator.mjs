// @ts-check
// A custom operator between `errors` and `aggregate`: it sees the error of every candidate at every noise level, and
// prints the mean error per level at the end. The pipeline is `classify`, written out.
//
//   node custom-operator.mjs IMAGES

import { all, findImages, loadImages, openClassifier } from 'diffclass-stream';
import {
  aggregate,
  eliminate,
  encode,
  errors,
  fanOut,
  isFan,
  pulled,
  tapPulled,
  untilDecided,
  verdict,
} from 'diffclass-stream/operators';
import { pipe } from 'rxjs';

/** @type {Map<number, { sum: number, count: number }>} */
const byLevel = new Map();

/** @type {import('rxjs').MonoTypeOperatorFunction<import('diffclass-stream/operators').Errors | import('diffclass-stream/operators').Passing>} */
const curve = tapPulled((value) => {
  if (!isFan(value) || !('errors' in value)) return;
  const { t = 0 } = value.image.trial.levels[value.fan.level] ?? {};
  const entry = byLevel.get(t) ?? { sum: 0, count: 0 };
  for (const error of value.errors) entry.sum += error;
  entry.count += value.errors.length;
  byLevel.set(t, entry);
});

const classifier = await openClassifier('fashion-mnist-multi-head');
const round = pipe(eliminate(all()), fanOut(), errors(classifier), curve, aggregate());
const images = loadImages(findImages(process.argv.slice(2)), classifier.inputShape);
await new Promise((resolve, reject) => {
  pulled(images)
    .pipe(encode(classifier), untilDecided(round, classifier.slots), verdict())
    .subscribe({ error: reject, complete: () => resolve(undefined) });
});
for (const [t, { sum, count }] of [...byLevel].sort(([a], [b]) => a - b))
  console.log(JSON.stringify({ t, error: sum / count, evaluations: count }));
await classifier.close();
