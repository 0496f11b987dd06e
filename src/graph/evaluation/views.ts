// Views: evaluations that differ in their candidates only share one noised image, which is called a view.

import type { EvaluationBatch } from '../model.ts';

/**
 * Returns the distinct (slot, level, noise, seed) of a batch, in the order of their first occurrence, and for each sample
 * the index of its view among them.
 */
export function viewsOf({ slot, level, noise, seed }: EvaluationBatch) {
  const indices = new Map<string, number>();
  const firsts: number[] = [];
  const repeats = (i: number) =>
    i > 0 &&
    slot[i] === slot[i - 1] &&
    level[i] === level[i - 1] &&
    noise[i] === noise[i - 1] &&
    seed?.[i] === seed?.[i - 1];
  const view = new Uint32Array(slot.length);
  for (let i = 0; i < slot.length; i++) {
    // The candidates of a view usually follow each other, and a key takes longer than a comparison.
    if (repeats(i)) {
      view[i] = view[i - 1]!;
      continue;
    }
    const key = `${slot[i]} ${level[i]} ${noise[i]} ${seed?.[i]}`;
    let index = indices.get(key);
    if (index === undefined) {
      index = firsts.length;
      indices.set(key, index);
      firsts.push(i);
    }
    view[i] = index;
  }
  const first = (values: Uint32Array) => Uint32Array.from(firsts, (i) => values[i]!);
  const seeds = seed && BigUint64Array.from(firsts, (i) => seed[i]!);
  return { view, slot: first(slot), level: first(level), noise: first(noise), seed: seeds };
}

/** Splits a batch into consecutive parts of at most `views` views each. */
export function splitByViews(batch: EvaluationBatch, views: number): EvaluationBatch[] {
  const { view } = viewsOf(batch);
  const starts: number[] = [];
  let seen = new Set<number>();
  view.forEach((index, i) => {
    if (i === 0 || (seen.size === views && !seen.has(index))) {
      starts.push(i);
      seen = new Set();
    }
    seen.add(index);
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
