// `--order input`: results in the order of the inputs, although images are decided in another.

import type { Classified, ItemFailure } from '../types.ts';

/** Images that may wait for a slower one ahead of them; then no more are begun. */
const MOST_WAITING = 1024;

type Result = Classified | ItemFailure;

interface Place {
  readonly path: string;
  result?: Result;
}

/** The two ends of a stream: items are noted on their way in, and their results let out in the same order. */
export interface InputOrder {
  note<T extends { readonly path: string }>(items: AsyncIterable<T>): AsyncIterable<T>;
  restore(results: AsyncIterable<Result>): AsyncIterable<Result>;
}

/**
 * Restores the order of a stream. When the stream is interrupted, or fails, results that still wait for a missing one
 * come at the end, in order.
 */
export function inputOrder(mostWaiting = MOST_WAITING): InputOrder {
  const places: Place[] = [];
  let wake: (() => void) | undefined;
  return {
    async *note(items) {
      for await (const item of items) {
        while (places.length >= mostWaiting)
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        places.push({ path: item.path });
        yield item;
      }
    },
    async *restore(results) {
      let failure: { readonly error: unknown } | undefined;
      try {
        for await (const result of results) {
          const place = places.find(({ path, result: known }) => path === result.path && !known);
          if (!place) throw new Error(`a result came for ${result.path}, which is no input`);
          place.result = result;
          while (places[0]?.result) yield places.shift()!.result!;
          wake?.();
        }
      } catch (error) {
        failure = { error };
      }
      for (const { result } of places.splice(0)) if (result) yield result;
      if (failure) throw failure.error;
    },
  };
}
