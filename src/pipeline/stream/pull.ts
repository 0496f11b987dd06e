// Pulled streams: bounded concurrency over an async iterable, and stopping at once.

import type { AbortSignalLike } from '../../host-types.ts';
import { leave } from './iterables.ts';
import { notifier } from './notifier.ts';

/**
 * Runs `task` on the items of a source, at most `limit` at a time, and yields results as they finish. An item is pulled
 * only after all results so far were taken, so the source is never more than `limit` items (and the one being pulled)
 * ahead of the consumer.
 *
 * If the source or a task fails, or `signal` aborts, results that are ready are still yielded; then it throws that error,
 * or the signal's reason. If the source is left early, its `return` is called.
 */
export async function* concurrently<A, B>(
  source: AsyncIterable<A>,
  task: (item: A) => Promise<B>,
  limit: number,
  signal: AbortSignalLike,
): AsyncGenerator<B, undefined> {
  const iterator = source[Symbol.asyncIterator]();
  const ready: B[] = [];
  let running = 0;
  let pulling = false;
  let exhausted = false;
  let failed: { readonly error: unknown } | undefined;
  const changed = notifier();

  const fail = (error: unknown): void => {
    failed ??= { error };
    changed.notify();
  };
  const start = async (item: A): Promise<void> => {
    running++;
    ready.push(await task(item));
    running--;
    changed.notify();
  };
  const pull = async (): Promise<void> => {
    pulling = true;
    const { done, value } = await iterator.next();
    pulling = false;
    if (done) exhausted = true;
    else start(value).catch(fail);
    changed.notify();
  };
  const abort = (): void => fail(signal.reason);
  signal.addEventListener('abort', abort);
  if (signal.aborted) abort();
  try {
    for (;;) {
      while (ready.length > 0) yield* ready.splice(0, 1);
      if (failed) throw failed.error;
      if (exhausted && running === 0) return;
      if (!pulling && !exhausted && running < limit) pull().catch(fail);
      await changed.wait();
    }
  } finally {
    signal.removeEventListener('abort', abort);
    if (!exhausted) await leave(iterator, pulling);
  }
}

/**
 * Makes an iterator over a generator whose `return()` takes effect at once: `signal` aborts, even while a result is awaited
 * (a bare generator would first run to its next `yield`), and the pending `next()` ends as done. The signal `outer` stops
 * it too; then `next()` rejects with its reason.
 */
export function stoppable<T>(
  make: (signal: AbortSignalLike) => AsyncGenerator<T, undefined>,
  outer?: AbortSignalLike,
): AsyncIterableIterator<T, undefined> {
  const inner = new AbortController();
  const generator = make(outer ? AbortSignal.any([outer, inner.signal]) : inner.signal);
  const unlessReturned = async (step: Promise<IteratorResult<T, undefined>>) => {
    try {
      return await step;
    } catch (error) {
      if (inner.signal.aborted && error === inner.signal.reason)
        return { done: true, value: undefined } as const;
      throw error;
    }
  };
  return {
    next: () => unlessReturned(generator.next()),
    return: () => {
      inner.abort();
      return unlessReturned(generator.return(undefined));
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** Waits for a value. If `signal` aborts first, throws its reason, and disposes of the value when it comes. */
export async function unlessAborted<T>(
  pending: Promise<T>,
  signal: AbortSignalLike,
  dispose: (value: T) => void = () => {},
): Promise<T> {
  let abort = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort);
    if (signal.aborted) abort();
  });
  try {
    return await Promise.race([pending, aborted]);
  } catch (error) {
    void pending.then(dispose, () => {});
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
