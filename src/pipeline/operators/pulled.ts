import type { OperatorFunction } from 'rxjs';
import { streamOperator } from '../stream/observable.ts';

/**
 * `map` that keeps back-pressure, also for functions that take time: the next value is pulled when the result of this
 * one was taken. Buffers nothing.
 *
 * @param map may return a promise, which is awaited.
 * @return an operator.
 */
export const mapPulled = <A, B>(map: (value: A) => B | Promise<B>): OperatorFunction<A, B> =>
  streamOperator(async function* (values: AsyncIterable<A>) {
    for await (const value of values) yield await map(value);
  });

/** `filter` that keeps back-pressure; see `mapPulled`. */
export const filterPulled = <A>(keep: (value: A) => boolean | Promise<boolean>): OperatorFunction<A, A> =>
  streamOperator(async function* (values: AsyncIterable<A>) {
    for await (const value of values) if (await keep(value)) yield value;
  });

/** `tap` that keeps back-pressure: a promise that `look` returns is awaited; see `mapPulled`. */
export const tapPulled = <A>(look: (value: A) => void | Promise<void>): OperatorFunction<A, A> =>
  mapPulled(async (value) => {
    await look(value);
    return value;
  });
