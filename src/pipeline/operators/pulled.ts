import type { OperatorFunction } from 'rxjs';
import { streamOperator } from '../stream/observable.ts';

/**
 * Maps values as RxJS's `map` does, but keeps back-pressure even if `map` is asynchronous: the next value is pulled after
 * the result of this one was taken. Buffers nothing.
 *
 * @param map returns the result, or a promise of it, which is awaited.
 * @return an operator from values to results.
 *
 * @example
 * import { imageFrom } from 'diffclass-stream';
 * import { mapPulled, pulled } from 'diffclass-stream/operators';
 *
 * async function* paths() {
 *   yield 'a.png';
 * }
 * pulled(paths())
 *   .pipe(mapPulled((path) => imageFrom(path)))
 *   .subscribe(({ path, width, height }) => console.log(path, width, height));
 */
export const mapPulled = <A, B>(map: (value: A) => B | Promise<B>): OperatorFunction<A, B> =>
  streamOperator(async function* (values: AsyncIterable<A>) {
    for await (const value of values) yield await map(value);
  });

/** Filters values as RxJS's `filter` does, but keeps back-pressure; see `mapPulled`. */
export const filterPulled = <A>(keep: (value: A) => boolean | Promise<boolean>): OperatorFunction<A, A> =>
  streamOperator(async function* (values: AsyncIterable<A>) {
    for await (const value of values) if (await keep(value)) yield value;
  });

/** Observes values as RxJS's `tap` does, but keeps back-pressure: awaits a promise that `observe` returns; see `mapPulled`. */
export const tapPulled = <A>(observe: (value: A) => void | Promise<void>): OperatorFunction<A, A> =>
  mapPulled(async (value) => {
    await observe(value);
    return value;
  });
