import type { OperatorFunction } from 'rxjs';
import type { AbortSignalLike } from '../../host-types.ts';
import { isImage, type Passing } from '../stream/flight.ts';
import { leave } from '../stream/iterables.ts';
import { notifier } from '../stream/notifier.ts';
import { pulled, pullOf, streamOperator } from '../stream/observable.ts';

/**
 * Sends images through a round of operators repeatedly, until their trials have ended.
 *
 * The rounds continue even if results are not taken, so a slow consumer does not stop the device. An image is pulled only
 * if fewer than `limit` images are in the rounds and all results so far were taken, so at most `limit` results wait. An
 * image whose trial has ended leaves its slot.
 *
 * @param round an operator that contains `eliminate`.
 * @param limit the largest number of images in the rounds.
 * @return an operator from images in flight to images whose trial has ended.
 *
 * @example
 * import { findImages, loadImages, openClassifier, sequential } from 'diffclass-stream';
 * import {
 *   aggregate, eliminate, encode, errors, fanOut, pulled, untilDecided, verdict,
 * } from 'diffclass-stream/operators';
 * import { pipe } from 'rxjs';
 *
 * const classifier = await openClassifier('fashion-mnist-multi-head');
 * const round = pipe(eliminate(sequential()), fanOut(), errors(classifier), aggregate());
 * pulled(loadImages(findImages(['photos']), classifier.inputShape))
 *   .pipe(encode(classifier), untilDecided(round, classifier.slots), verdict())
 *   .subscribe((result) => console.log(result));
 */
export const untilDecided = (
  round: OperatorFunction<Passing, Passing>,
  limit: number,
): OperatorFunction<Passing, Passing> =>
  streamOperator((arriving: AsyncIterable<Passing>, signal) => rounds(arriving, round, limit, signal));

async function* rounds(
  arriving: AsyncIterable<Passing>,
  round: OperatorFunction<Passing, Passing>,
  limit: number,
  signal: AbortSignalLike,
): AsyncGenerator<Passing> {
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  const again: Passing[] = [];
  const ready: Passing[] = [];
  const source = arriving[Symbol.asyncIterator]();
  let inRounds = 0;
  let pulling = false;
  let exhausted = false;
  let failed: { readonly error: unknown } | undefined;
  const feeder = notifier();
  const results = notifier();

  const fail = (error: unknown): void => {
    failed ??= { error };
    feeder.notify();
    results.notify();
  };

  const pull = async (): Promise<void> => {
    pulling = true;
    const { done, value } = await source.next();
    pulling = false;
    if (done) exhausted = true;
    else {
      again.push(value);
      inRounds++;
    }
    feeder.notify();
    results.notify();
  };

  /** Yields what enters the rounds: images that need another round, and new ones if fewer than `limit` are in them. */
  async function* feed(): AsyncGenerator<Passing> {
    for (;;) {
      while (again.length > 0) yield again.shift()!;
      if (failed || stopped.aborted || (exhausted && inRounds === 0)) return;
      const room = inRounds < limit && ready.length === 0;
      if (room && !pulling && !exhausted) pull().catch(fail);
      await feeder.wait();
    }
  }

  const drive = async (): Promise<void> => {
    const through = pullOf(round(pulled(() => feed())))(stopped);
    for await (const value of through) {
      if (isImage(value) && value.trial.decided === undefined) again.push(value);
      else {
        if (isImage(value)) value.lease.release();
        inRounds--;
        ready.push(value);
        results.notify();
      }
      feeder.notify();
    }
  };

  const abort = (): void => fail(signal.reason);
  signal.addEventListener('abort', abort);
  drive().catch(fail);
  try {
    for (;;) {
      while (ready.length > 0) yield* ready.splice(0, 1);
      if (signal.aborted) throw signal.reason;
      if (failed) throw failed.error;
      if (exhausted && inRounds === 0) return;
      feeder.notify();
      await results.wait();
    }
  } finally {
    signal.removeEventListener('abort', abort);
    stop.abort(signal.reason);
    feeder.notify();
    if (!exhausted) await leave(source, pulling);
  }
}
