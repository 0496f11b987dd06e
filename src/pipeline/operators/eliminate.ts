import type { OperatorFunction } from 'rxjs';
import { bind, type Decide } from '../deciding/bind.ts';
import { sequential } from '../deciding/sequential.ts';
import { eliminate as after, type Strategy } from '../deciding/trial.ts';
import { isImage, type Passing } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';

/**
 * Applies a strategy: it decides which candidates stay and what `fanOut` evaluates next. An image whose trial has ended
 * requests nothing and passes through all further rounds to `verdict`.
 *
 * @param strategy sequential by default.
 * @param options `budget`: the largest number of evaluations per image, at least one per candidate.
 * @return an operator from images in flight to images in flight. It throws UsageError if strategy, budget and model do
 *   not fit together.
 *
 * @example
 * import { findImages, loadImages, openClassifier, staged } from 'diffclass-stream';
 * import { aggregate, eliminate, encode, errors, fanOut, pulled, verdict } from 'diffclass-stream/operators';
 * import { pipe } from 'rxjs';
 *
 * const classifier = await openClassifier('fashion-mnist-multi-head');
 * const strategy = staged({ nSamples: [2, 10], toKeep: [3, 1] });
 * // The two stages, written out.
 * const round = pipe(eliminate(strategy), fanOut(), errors(classifier), aggregate());
 * pulled(loadImages(findImages(['photos']), classifier.inputShape))
 *   .pipe(encode(classifier), round, round, eliminate(strategy), verdict())
 *   .subscribe((result) => console.log(result));
 */
export const eliminate = (
  strategy: Strategy = sequential(),
  { budget }: { readonly budget?: number | undefined } = {},
): OperatorFunction<Passing, Passing> =>
  streamOperator(async function* (passing: AsyncIterable<Passing>) {
    let decide: Decide | undefined;
    for await (const image of passing) {
      if (!isImage(image)) {
        yield image;
        continue;
      }
      decide ??= bind(image.model, { strategy, budget });
      const [trial, round] = after(image.trial, decide(image.trial), budget);
      yield { ...image, trial, look: round, evaluated: undefined };
    }
  });
