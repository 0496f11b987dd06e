// Errors of all pairs of an item's images and captions, on the same noise, and which of them match.

import { sum } from '../../numbers.ts';
import { ascending } from '../deciding/levels.ts';
import { lessUnconditional, type Matches, matchesOf } from '../deciding/matching.ts';
import { fanOut, startTrial } from '../deciding/trial.ts';
import type { ImageItem } from '../types.ts';
import type { Batcher } from './batcher.ts';
import { groupErrors } from './flight.ts';
import type { User } from './jobs.ts';

/** Images of an item, and the captions that belong to them. */
interface Pairs {
  /** Images with pixels [c, h, w] in [-1, 1]. */
  readonly images: readonly Pick<ImageItem, 'pixels' | 'geometry'>[];
  /** Index of the candidate of each image's own caption. */
  readonly captions: readonly number[];
  /** Index of the candidate without a caption, the empty prompt. */
  readonly unconditional: number;
}

/** Errors of an item's pairs, and which of them match. */
export interface PairErrors extends Matches {
  /** Weighted mean error over the grid: `errors[i][j]` of image i under caption j. */
  readonly errors: readonly (readonly number[])[];
  /** Weighted mean error of each image under the empty prompt. */
  readonly unconditional: readonly number[];
  /** What matches by errors minus the unconditional ones. */
  readonly lessUnconditional: Matches;
  readonly evaluations: number;
}

/**
 * Evaluates every image of an item with each of its captions and with the empty prompt, at every level of the model's
 * grid, on the same noise (see `fanOut`). Rejects with `ItemError` if the fault is the item's.
 */
export async function pairErrors(
  batcher: Batcher,
  { images, captions, unconditional }: Pairs,
): Promise<PairErrors> {
  const candidates = [...new Set([...captions, unconditional])];
  const user = batcher.user();
  const rows = await Promise.all(images.map((image) => meanErrors(batcher, user, image, candidates)));
  const errors = rows.map((row) => captions.map((caption) => row.get(caption)!));
  const alone = rows.map((row) => row.get(unconditional)!);
  return {
    errors,
    unconditional: alone,
    ...matchesOf(errors),
    lessUnconditional: matchesOf(lessUnconditional(errors, alone)),
    evaluations: images.length * candidates.length * batcher.model.levels.length,
  };
}

/** Returns the weighted mean error of an image under each candidate, by index of the candidate. */
async function meanErrors(
  batcher: Batcher,
  user: User,
  { pixels, geometry }: Pairs['images'][number],
  candidates: readonly number[],
): Promise<ReadonlyMap<number, number>> {
  const { levels } = batcher.model;
  const order = ascending(levels);
  const lease = await batcher.lease(user, pixels, { geometry });
  try {
    const groups = fanOut(startTrial(batcher.model), { survivors: candidates, levels: order });
    const rows = await Promise.all(groups.map((group) => groupErrors(lease, group)));
    const weights = order.map((level) => levels[level]!.weight);
    const total = sum(weights);
    const mean = (i: number) => sum(rows.map((row, k) => weights[k]! * row[i]!)) / total;
    return new Map(candidates.map((candidate, i) => [candidate, mean(i)]));
  } finally {
    lease.release();
  }
}
