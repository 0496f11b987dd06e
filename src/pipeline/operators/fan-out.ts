import type { OperatorFunction } from 'rxjs';
import { ascending } from '../deciding/levels.ts';
import { fanOut as groupsOf, type Round } from '../deciding/trial.ts';
import { type ImageInFlight, isImage, type Passing, type SharedFan } from '../stream/flight.ts';
import { streamOperator } from '../stream/observable.ts';

/**
 * Splits an image into the evaluations that its last elimination requested: one value per (level, noise), shared by all
 * surviving candidates. Without an elimination, the image is evaluated on the whole grid, in ascending order.
 *
 * Images with nothing left to evaluate and failures pass. Buffers nothing.
 *
 * @return an operator from images in flight to groups. For an example, see `aggregate`.
 */
export const fanOut = (): OperatorFunction<Passing, SharedFan | Passing> =>
  streamOperator(async function* (passing: AsyncIterable<Passing>) {
    for await (const image of passing) {
      const groups = isImage(image) ? groupsOf(image.trial, image.look ?? rest(image)) : [];
      if (groups.length === 0 || !isImage(image)) yield image;
      else
        for (const [index, group] of groups.entries()) yield { image, fan: group, index, of: groups.length };
    }
  });

/** Returns a round over the levels that were not visited, in ascending order. */
function rest({ trial }: ImageInFlight): Round {
  const visited = new Set(trial.visited);
  return {
    survivors: trial.survivors,
    levels: ascending(trial.levels).filter((level) => !visited.has(level)),
  };
}
