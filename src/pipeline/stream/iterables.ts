import type { AbortSignalLike } from '../../host-types.ts';

// Two bounded ways through an async iterable.

const ended = { done: true, value: undefined } as const;

/** Lets go of an iterator without waiting: its last `next` may never settle (an idle standard input). */
function release(iterator: AsyncIterator<unknown>): void {
  iterator.return?.().then(undefined, () => undefined);
}

function nextUntil<T>(iterator: AsyncIterator<T>, signal: AbortSignalLike): Promise<IteratorResult<T>> {
  return new Promise((resolve, reject) => {
    const stop = () => resolve(ended);
    if (signal.aborted) return stop();
    signal.addEventListener('abort', stop, { once: true });
    iterator.next().then(
      (result) => {
        signal.removeEventListener('abort', stop);
        resolve(result);
      },
      (error: unknown) => {
        signal.removeEventListener('abort', stop);
        reject(error);
      },
    );
  });
}

/** The values of a source until the signal is raised; then it ends normally, at once. */
export async function* until<T>(source: AsyncIterable<T>, signal: AbortSignalLike): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const result = await nextUntil(iterator, signal);
      if (result.done) return;
      yield result.value;
    }
  } finally {
    release(iterator);
  }
}

/**
 * Maps a source with at most `limit` calls under way, in the source's order. At most `limit` results wait, and
 * nothing is pulled from the source before somebody pulls here.
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
        pending.catch(() => undefined); // reported when its turn comes
        waiting.push(pending);
      }
      const result = await waiting.shift()!;
      if (result.done) return;
      yield result.value;
    }
  } finally {
    release(iterator);
  }
}
