// Async iterables that end at a signal, or are mapped with bounded concurrency.

import type { AbortSignalLike } from '../../host-types.ts';

const ended = { done: true, value: undefined } as const;

/**
 * Ends an iterator early. Waits for its cleanup unless a `next` is `pending`: `return` would wait for that, and it may
 * never settle (an idle standard input).
 */
export async function leave(iterator: AsyncIterator<unknown>, pending: boolean): Promise<void> {
  const returned = iterator.return?.();
  if (pending) returned?.catch(() => undefined);
  else await returned;
}

/** What to call when a signal aborts, by signal. */
const atAbort = new WeakMap<AbortSignalLike, Set<() => void>>();

/**
 * Calls a function when a signal aborts, until the function that is returned is called. All operators of a stream wait for
 * the same signal, and Node warns of a leak if it has more than ten listeners, so it gets one for all of them.
 */
function onAbort(signal: AbortSignalLike, act: () => void): () => void {
  let acts = atAbort.get(signal);
  if (!acts) {
    const all = new Set<() => void>();
    acts = all;
    atAbort.set(signal, all);
    signal.addEventListener('abort', () => {
      for (const each of all) each();
    });
  }
  acts.add(act);
  return () => acts.delete(act);
}

/** Returns the next result of an iterator, or its end if the signal aborts first. */
function nextUntil<T>(iterator: AsyncIterator<T>, signal: AbortSignalLike): Promise<IteratorResult<T>> {
  return new Promise((resolve, reject) => {
    const stop = () => resolve(ended);
    if (signal.aborted) return stop();
    const forget = onAbort(signal, stop);
    iterator.next().then(
      (result) => {
        forget();
        resolve(result);
      },
      (error: unknown) => {
        forget();
        reject(error);
      },
    );
  });
}

/** Yields the values of a source until the signal aborts; then it ends normally, at once. */
export async function* until<T>(source: AsyncIterable<T>, signal: AbortSignalLike): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const result = await nextUntil(iterator, signal);
      if (result.done) return;
      yield result.value;
    }
  } finally {
    await leave(iterator, true);
  }
}

/**
 * Maps a source in its order, with at most `limit` calls at a time. At most `limit` results wait, and nothing is pulled from
 * the source before a result is pulled here.
 */
export async function* mapOrdered<T, R>(
  source: AsyncIterable<T>,
  limit: number,
  map: (value: T) => Promise<R>,
): AsyncGenerator<R> {
  const iterator = source[Symbol.asyncIterator]();
  const step = async (): Promise<IteratorResult<R>> => {
    const result = await iterator.next();
    return result.done ? ended : { done: false, value: await map(result.value) };
  };
  const waiting: Promise<IteratorResult<R>>[] = [];
  try {
    for (;;) {
      while (waiting.length < limit) {
        const pending = step();
        pending.catch(() => undefined); // thrown when its turn comes
        waiting.push(pending);
      }
      const result = await waiting.shift()!;
      if (result.done) return;
      yield result.value;
    }
  } finally {
    await leave(iterator, true);
  }
}
