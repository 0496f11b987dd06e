// Evaluations that differ in their candidates only look at the same noised image: a view.

import type { EvaluationBatch } from '../model.ts';

/**
 * Finds the distinct (slot, level, noise, seed) of a batch, in the order in which they first occur, and which of them
 * each sample has.
 */
export function viewsOf({ slot, level, noise, seed }: EvaluationBatch) {
  const places = new Map<string, number>();
  const firsts: number[] = [];
  const view = slot.map((_, i) => {
    const key = `${slot[i]} ${level[i]} ${noise[i]} ${seed?.[i]}`;
    let place = places.get(key);
    if (place === undefined) {
      place = firsts.length;
      places.set(key, place);
      firsts.push(i);
    }
    return place;
  });
  const first = (values: Uint32Array) => Uint32Array.from(firsts, (i) => values[i]!);
  const seeds = seed && BigUint64Array.from(firsts, (i) => seed[i]!);
  return { view, slot: first(slot), level: first(level), noise: first(noise), seed: seeds };
}

/** Cuts a batch into consecutive parts of at most `views` distinct (slot, level, noise, seed) each. */
export function splitByViews(batch: EvaluationBatch, views: number): EvaluationBatch[] {
  const { view } = viewsOf(batch);
  const starts: number[] = [];
  let seen = new Set<number>();
  view.forEach((place, i) => {
    if (i === 0 || (seen.size === views && !seen.has(place))) {
      starts.push(i);
      seen = new Set();
    }
    seen.add(place);
  });
  return starts.map((from, k) => {
    const part = (values: Uint32Array) => values.slice(from, starts[k + 1]);
    const { slot, candidate, level, noise, seed } = batch;
    return {
      slot: part(slot),
      candidate: part(candidate),
      level: part(level),
      noise: part(noise),
      seed: seed?.slice(from, starts[k + 1]),
    };
  });
}
