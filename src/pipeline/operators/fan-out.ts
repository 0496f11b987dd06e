import type { OperatorFunction } from 'rxjs';
import { ascending } from '../deciding/levels.ts';
import { fanOut as fansOf, type Round } from '../deciding/trial.ts';
import { type ImageInFlight, isImage, type Passing, type SharedFan } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';

/**
 * Fans an image out to what its last elimination asked for: one value per (level, noise), shared by all surviving
 * candidates. An image for which no elimination was made fans out to the whole grid, in ascending order.
 *
 * An image with nothing left to evaluate passes, as do failures. Buffers nothing.
 *
 * @return an operator from images in flight to shared fans.
 */
export const fanOut = (): OperatorFunction<Passing, SharedFan | Passing> =>
  streamOperator(async function* (passing: AsyncIterable<Passing>) {
    for await (const image of passing) {
      const fans = isImage(image) ? fansOf(image.trial, image.look ?? rest(image)) : [];
      if (fans.length === 0 || !isImage(image)) yield image;
      else for (const [index, fan] of fans.entries()) yield { image, fan, index, of: fans.length };
    }
  });

function rest({ trial }: ImageInFlight): Round {
  const visited = new Set(trial.visited);
  return {
    survivors: trial.survivors,
    levels: ascending(trial.levels).filter((level) => !visited.has(level)),
  };
}
