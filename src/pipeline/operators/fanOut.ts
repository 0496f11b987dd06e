import type { OperatorFunction } from 'rxjs';
import { ascending } from '../deciding/levels.ts';
import { fanOut as fansOf, type Look } from '../deciding/trial.ts';
import { type ImageInFlight, isImage, type Passing, type SharedFan } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';

/**
 * Fans an image out to what its last elimination asked for: one value a (level, noise), shared by all
 * surviving candidates. An image that was never asked fans out to the whole grid, in ascending order.
 *
 * An image with nothing left to evaluate passes, as do failures. Buffers nothing.
 *
 * @return an operator from images in flight to shared fans.
 *
 * @example
 * // One round of the sequential strategy, then the best guess.
 * images$.pipe(
 *   encode(session), eliminate(sequential()), fanOut(), errors(session), aggregate(), verdict(),
 * );
 */
export const fanOut = (): OperatorFunction<Passing, SharedFan | Passing> =>
  streamOperator(async function* (passing: AsyncIterable<Passing>) {
    for await (const image of passing) {
      const fans = isImage(image) ? fansOf(image.trial, image.look ?? rest(image)) : [];
      if (fans.length === 0 || !isImage(image)) yield image;
      else for (const fan of fans) yield { image, fan, of: fans.length };
    }
  });

function rest({ trial }: ImageInFlight): Look {
  const visited = new Set(trial.visited);
  return {
    survivors: trial.survivors,
    levels: ascending(trial.levels).filter((level) => !visited.has(level)),
  };
}
