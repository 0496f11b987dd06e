// Connects RxJS with pulled streams. RxJS has no back-pressure: subscribers are pushed to. So an observable made here
// remembers how to pull it. Operators made here pull each other, and the subscription at the end drives the whole chain at
// the pace of its last stage. Ordinary RxJS operators in between push, but their source waits for the stage that is
// pulled after them.

import { Observable, type OperatorFunction, Subject, takeUntil } from 'rxjs';
import type { AbortSignalLike } from '../../host-types.ts';
import { until } from './iterables.ts';
import { deferred, notifier } from './notifier.ts';
import { stoppable } from './pull.ts';

/** Begins a run of a stream, as a subscription does; the run stops at once when `signal` aborts. */
export type Pull<T> = (signal: AbortSignalLike) => AsyncIterable<T>;

const pulls = new WeakMap<object, Pull<unknown>>();

/** Returns a promise for which sources wait while their consumer has enough items; undefined if they need not wait. */
type Gate = () => Promise<void> | undefined;

/** The gate of the queue that is subscribing now: sources that this subscription reaches wait at it. */
let subscribing: Gate | undefined;

/**
 * Makes an observable of an async iterable. Items are read one after the other, and nothing is buffered. Each subscription
 * is a separate run, and unsubscribing ends it at once: the signal aborts, and `return` of the iterator is called.
 *
 * Operators of this library applied to it directly pull it at their own pace. Ordinary RxJS operators that emit while
 * they receive (`map`, `filter`, `tap`, `scan`, `take`, ...) may stand in between: the source then waits whenever items
 * wait in front of the library's operator, so memory stays bounded at any length. Operators that hold values back on
 * their own (`mergeMap` or `concatMap` with promises, `delay`, `buffer`) hide how much waits; use `mapPulled` instead.
 *
 * @param source an async iterable, or a function that makes one for each subscription.
 * @return an observable of its items.
 *
 * @example
 * import { findImages, loadImages, openClassifier } from 'diffclass-stream';
 * import { classify, pulled } from 'diffclass-stream/operators';
 * import { filter } from 'rxjs';
 *
 * const classifier = await openClassifier('fashion-mnist-multi-head');
 * pulled(loadImages(findImages(['photos']), classifier.inputShape))
 *   .pipe(filter(({ path }) => !path.includes('draft')), classify(classifier))
 *   .subscribe((result) => console.log(result));
 */
export function pulled<T>(source: AsyncIterable<T> | Pull<T>): Observable<T> {
  const pull: Pull<T> = typeof source === 'function' ? source : () => source;
  const observable = new Observable<T>((subscriber) => {
    const gate = subscribing;
    const controller = new AbortController();
    let iterator: AsyncIterator<T> | undefined;
    const drive = async (): Promise<void> => {
      iterator = pull(controller.signal)[Symbol.asyncIterator]();
      while (!subscriber.closed) {
        await gate?.();
        if (subscriber.closed) return;
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

/** Default for the largest number of items of a plain observable that wait to be pulled. */
const QUEUE = 1024;

/** While this many items wait in front of an operator, pulled sources further up are not read. */
const ENOUGH = 16;

/**
 * Returns a function that pulls an observable: directly if it was made by `pulled`, otherwise through a queue. The queue
 * subscribes at once, as an operator would, and holds at most `queue` items. Sources made by `pulled` wait while items are
 * in the queue. Other sources cannot be made to wait, so one item more than `queue` is an error of the stream.
 */
export function pullOf<T>(observable: Observable<T>, queue = QUEUE): Pull<T> {
  const remembered = pulls.get(observable) as Pull<T> | undefined;
  return remembered ?? ((signal) => queued(observable, queue, signal));
}

/**
 * Makes an operator of a function over async iterables.
 *
 * @param f maps the source to results. The source that `f` reads ends when `signal` aborts, even while `f` awaits an item.
 * @param queue the largest number of items that wait if the source is a plain observable. A pulled source is pulled:
 *   nothing is buffered but what `f` holds.
 * @return an operator whose observable is pulled.
 *
 * @example
 * import { streamOperator } from 'diffclass-stream/operators';
 *
 * const firstOfEach = streamOperator(async function* (pairs: AsyncIterable<readonly [string, string]>) {
 *   for await (const [first] of pairs) yield first;
 * });
 */
export const streamOperator =
  <A, B>(
    f: (source: AsyncIterable<A>, signal: AbortSignalLike) => AsyncIterable<B>,
    queue = QUEUE,
  ): OperatorFunction<A, B> =>
  (source) =>
    pulled((signal) => f(until(pullOf(source, queue)(signal), signal), signal));

/** Pulls a plain observable through a queue. */
function queued<T>(observable: Observable<T>, limit: number, signal: AbortSignalLike): AsyncIterable<T> {
  const waiting: T[] = [];
  const arrived = notifier();
  let ended: { readonly error?: unknown; readonly failed: boolean } | undefined;
  let enough: ReturnType<typeof deferred> | undefined;
  const openGate = (): void => {
    enough?.resolve();
    enough = undefined;
  };
  const end = (failed: boolean, error?: unknown): void => {
    ended ??= { failed, error };
    openGate();
    arrived.notify();
  };
  const left$ = new Subject<void>();
  const stop = (): void => {
    end(false);
    left$.next();
  };
  const gate: Gate = () => {
    if (ended || waiting.length < Math.min(ENOUGH, limit)) return undefined;
    enough ??= deferred();
    return enough.promise;
  };
  const before = subscribing;
  subscribing = gate;
  try {
    observable.pipe(takeUntil(left$)).subscribe({
      next(value) {
        if (waiting.length < limit) waiting.push(value);
        else {
          end(
            true,
            new Error(
              `expected at most ${limit} items to wait, got more: this source pushes faster than its items are taken; make it pulled(iterable), and use mapPulled instead of operators that hold values back`,
            ),
          );
          left$.next();
        }
        arrived.notify();
      },
      error: (error) => end(true, error),
      complete: () => end(false),
    });
  } finally {
    subscribing = before;
  }
  signal.addEventListener('abort', stop);
  return stoppable(async function* (inner): AsyncGenerator<T, undefined> {
    inner.addEventListener('abort', stop);
    try {
      for (;;) {
        while (waiting.length > 0) {
          const [value] = waiting.splice(0, 1) as [T];
          if (waiting.length < ENOUGH) openGate();
          yield value;
        }
        if (ended?.failed) throw ended.error;
        if (ended) return;
        await arrived.wait();
      }
    } finally {
      signal.removeEventListener('abort', stop);
      stop();
    }
  });
}
