import type { OperatorFunction } from 'rxjs';
import { eliminate as after } from '../deciding/trial.ts';
import { bind, type ClassifyOptions, type Decide } from '../stream/classify.ts';
import { isImage, type Passing } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';

/**
 * Asks a strategy who stays in and what to evaluate next; `fanOut` then does what it says. A trial that has
 * ended asks for nothing, and passes through all further rounds to `verdict`.
 *
 * @param options the strategy (sequential by default) and the budget.
 * @return an operator from images in flight to images in flight.
 *
 * @example
 * // The two stages of staged({ nSamples: [50, 500], toKeep: [5, 1] }), by hand.
 * const round = pipe(eliminate({ strategy }), fanOut(), errors(session), aggregate());
 * images$.pipe(encode(session), round, round, eliminate({ strategy }), verdict());
 */
export const eliminate = (
  options: Pick<ClassifyOptions, 'strategy' | 'budget'> = {},
): OperatorFunction<Passing, Passing> =>
  streamOperator(async function* (passing: AsyncIterable<Passing>) {
    let decide: Decide | undefined;
    for await (const image of passing) {
      if (!isImage(image)) {
        yield image;
        continue;
      }
      decide ??= bind(image.session.model, options);
      const [trial, look] = after(image.trial, decide(image.trial), options.budget);
      yield { ...image, trial, look };
    }
  });
