// The RxJS face of pulled streams. RxJS has no backpressure: whoever subscribes is pushed to. So an observable
// made here remembers how to be pulled; an operator made here chains that, and the one subscription at the
// end drives the whole chain at the pace of its last stage.

import { Observable, type OperatorFunction, Subject, takeUntil } from 'rxjs';
import { stoppable } from './pull.ts';

/** Begins a run of a stream, as a subscription does; the run stops at once when `signal` aborts. */
export type Pull<T> = (signal: AbortSignal) => AsyncIterable<T>;

const pulls = new WeakMap<object, Pull<unknown>>();

/**
 * An observable of an async iterable, read one item after the other; what is emitted is never buffered. Each
 * subscription is a run of its own, and unsubscribing ends it at once: the signal aborts, the iterator is told
 * to return. Operators of this library applied to it directly pull it at their own pace; any other operator
 * between sees a plain observable, which reads the source as fast as it gives.
 *
 * @param source an async iterable, or a function that begins one.
 *
 * @example
 * pulled(readDirectory('photos')).pipe(classify(openModel)).subscribe(console.log);
 */
export function pulled<T>(source: AsyncIterable<T> | Pull<T>): Observable<T> {
  const pull: Pull<T> = typeof source === 'function' ? source : () => source;
  const observable = new Observable<T>((subscriber) => {
    const controller = new AbortController();
    let iterator: AsyncIterator<T> | undefined;
    const drive = async (): Promise<void> => {
      iterator = pull(controller.signal)[Symbol.asyncIterator]();
      while (!subscriber.closed) {
        const { done, value } = await iterator.next();
        if (done) return subscriber.complete();
        subscriber.next(value);
      }
    };
    subscriber.add(() => {
      controller.abort();
      iterator?.return?.().catch(() => {});
    });
    drive().catch((error: unknown) => subscriber.error(error));
  });
  pulls.set(observable, pull);
  return observable;
}

/**
 * How to pull an observable: the way it remembers, or, for a plain one, through a queue. The queue subscribes
 * at once, as an operator would, and holds at most `queue` items that wait to be pulled; one more is an error
 * of the stream, since a plain observable cannot be told to wait.
 */
export function pullOf<T>(observable: Observable<T>, queue: number): Pull<T> {
  const remembered = pulls.get(observable) as Pull<T> | undefined;
  return remembered ?? ((signal) => queued(observable, queue, signal));
}

/** Most items of a plain observable that wait to be pulled, unless an operator is told otherwise. */
export const QUEUE = 1024;

/**
 * Makes an operator of a function over async iterables. On a pulled source it is pulled itself: nothing is
 * buffered but what `f` holds. On a plain observable up to `queue` items wait (see `pullOf`).
 *
 * @example
 * const firstOfEach = streamOperator(async function* (pairs: AsyncIterable<readonly [string, string]>) {
 *   for await (const [first] of pairs) yield first;
 * });
 */
export const streamOperator =
  <A, B>(
    f: (source: AsyncIterable<A>, signal: AbortSignal) => AsyncIterable<B>,
    queue = QUEUE,
  ): OperatorFunction<A, B> =>
  (source) =>
    pulled((signal) => f(pullOf(source, queue)(signal), signal));

function queued<T>(observable: Observable<T>, limit: number, signal: AbortSignal): AsyncIterable<T> {
  const waiting: T[] = [];
  let ended: { readonly error?: unknown; readonly failed: boolean } | undefined;
  let wake = (): void => {};
  const end = (failed: boolean, error?: unknown): void => {
    ended ??= { failed, error };
    wake();
  };
  const left$ = new Subject<void>();
  const stop = (): void => {
    end(false);
    left$.next();
  };
  observable.pipe(takeUntil(left$)).subscribe({
    next(value) {
      if (waiting.length < limit) waiting.push(value);
      else {
        end(
          true,
          new Error(`more than ${limit} items wait: the source pushes faster than its items are taken`),
        );
        left$.next();
      }
      wake();
    },
    error: (error) => end(true, error),
    complete: () => end(false),
  });
  signal.addEventListener('abort', stop);
  return stoppable(async function* (inner): AsyncGenerator<T, undefined> {
    inner.addEventListener('abort', stop);
    try {
      for (;;) {
        while (waiting.length > 0) yield* waiting.splice(0, 1);
        if (ended?.failed) throw ended.error;
        if (ended) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      signal.removeEventListener('abort', stop);
      stop();
    }
  });
}
