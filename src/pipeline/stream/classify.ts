// The bounded core: images are pulled as slots become free, and every image runs its own trial.

import { sequential } from '../deciding/sequential.ts';
import {
  aggregate,
  eliminate,
  type Facts,
  fanOut,
  type Strategy,
  startTrial,
  type Trial,
} from '../deciding/trial.ts';
import { type ResultOptions, resultOf } from '../deciding/verdict.ts';
import { faultOf, UsageError } from '../errors.ts';
import {
  type Classified,
  type EvaluationRecord,
  type ImageItem,
  type ItemFailure,
  isFailure,
  type Progress,
  progressAfter,
} from '../types.ts';
import type { OpenModel } from './batches.ts';
import { concurrently, stoppable, unlessAborted } from './pull.ts';
import { openSession, type Session, type Ticket } from './session.ts';

/** How to classify; every field has a default. */
export interface ClassifyOptions extends ResultOptions {
  /** Default: `sequential()`. */
  readonly strategy?: Strategy;
  /** Most evaluations spent on an image, at least one a candidate; `decided` is false where it ends a trial. */
  readonly budget?: number;
  /** Images in flight, at most the model's slots, which is the default. */
  readonly concurrency?: number;
  /** Told of the evaluations of an image, level by level, as soon as a round of it is complete; awaited. */
  readonly onEvaluations?: (records: readonly EvaluationRecord[]) => void | Promise<void>;
  /** Told after every round and every image. */
  readonly onProgress?: (progress: Progress) => void;
  /** Stops at once: results that are ready still come, then the stream rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A strategy bound to a model, and asked with a trial. */
export type Decide = ReturnType<Strategy>;

/**
 * Binds a strategy and checks the budget.
 *
 * @throws UsageError where the strategy does not fit the model, or the budget does not reach every candidate.
 */
export function bind(
  facts: Facts,
  { strategy = sequential(), budget }: Pick<ClassifyOptions, 'strategy' | 'budget'>,
): Decide {
  const { candidates, levels } = facts;
  if (candidates.length === 0 || levels.length === 0)
    throw new UsageError(`nothing to decide: ${candidates.length} candidates, ${levels.length} levels`);
  if (budget !== undefined && !(budget >= candidates.length))
    throw new UsageError(
      `a budget of ${budget} does not reach each of the ${candidates.length} candidates once`,
    );
  return strategy(facts);
}

/**
 * One image from its slot to its verdict. A fault of the item comes back as a failure; faults of the device
 * reject.
 */
export async function classifyImage(
  session: Session,
  item: ImageItem,
  decide: Decide,
  options: ClassifyOptions = {},
  afterRound?: () => void,
): Promise<Classified | ItemFailure> {
  const { budget, now = Date.now, onEvaluations } = options;
  const { model } = session;
  let ticket: Ticket | undefined;
  try {
    const admitted = await session.admit(item.pixels);
    ticket = admitted;
    const started = now();
    let trial = startTrial(model);
    for (;;) {
      const [next, look] = eliminate(trial, decide(trial), budget);
      if (next.decided !== undefined)
        return resultOf({ path: item.path, trial: next, started }, model, options);
      const fans = fanOut(next, look);
      const errors = await Promise.all(fans.map((fan) => session.errors(admitted, fan)));
      trial = aggregate(next, fans, errors);
      if (onEvaluations) await onEvaluations(recordsOf(item.path, trial, fans.length));
      afterRound?.();
    }
  } catch (error) {
    return { path: item.path, error: faultOf(error) };
  } finally {
    if (ticket) session.release(ticket);
  }
}

/** Records of the evaluations at the last `count` levels visited. */
function recordsOf(path: string, trial: Trial, count: number): EvaluationRecord[] {
  const records: EvaluationRecord[] = [];
  for (let noise = trial.visited.length - count; noise < trial.visited.length; noise++) {
    const { t, sigma, weight } = trial.levels[trial.visited[noise]!]!;
    const at = t === undefined ? { sigma: sigma ?? Number.NaN } : { t };
    for (const candidate of trial.survivors)
      records.push({ path, candidate, ...at, noise, weight, error: trial.errors[noise]![candidate]! });
  }
  return records;
}

/**
 * Classifies a stream of images with bounded memory: an item is pulled when fewer than `concurrency` images are
 * in flight and every result so far has been taken, so the source is never more than `concurrency` items (and
 * the one being pulled) ahead of the consumer.
 *
 * Results come as soon as they are decided, each once, in no particular order; failures among the items pass
 * through, and an image that cannot be classified becomes one. What an image asks for, and so its result, is a
 * function of its own errors alone: not of the batch size, the concurrency or its neighbours.
 *
 * The model is opened when the first result is asked for, and closed at the end, on an error, on
 * `signal` and on `return()`, even while a result is awaited.
 *
 * @throws UsageError where strategy, budget and model do not fit (from the first `next()`).
 *
 * @example
 * for await (const result of classifyImages(images, openModel, { topK: 1 }))
 *   console.log(result.path, 'label' in result ? result.label : result.error.message);
 */
export const classifyImages = (
  source: AsyncIterable<ImageItem | ItemFailure>,
  openModel: OpenModel,
  options: ClassifyOptions = {},
): AsyncIterableIterator<Classified | ItemFailure, undefined> =>
  stoppable((signal) => run(source, openModel, options, signal), options.signal);

async function* run(
  source: AsyncIterable<ImageItem | ItemFailure>,
  openModel: OpenModel,
  options: ClassifyOptions,
  signal: AbortSignal,
): AsyncGenerator<Classified | ItemFailure, undefined> {
  signal.throwIfAborted();
  const report = reporter(options);
  const session = await unlessAborted(openSession(openModel), signal, (late) => late.close());
  const close = (): void => session.close(signal.reason);
  signal.addEventListener('abort', close);
  try {
    const { slots } = session.model;
    const decide = bind(session.model, options);
    const task = async (item: ImageItem | ItemFailure): Promise<Classified | ItemFailure> => {
      const result = isFailure(item)
        ? item
        : await classifyImage(session, item, decide, options, () => report(session));
      report(session, result);
      return result;
    };
    yield* concurrently(source, task, Math.max(1, Math.min(options.concurrency ?? slots, slots)), signal);
  } finally {
    signal.removeEventListener('abort', close);
    session.close();
  }
}

/** Counts results and tells `onProgress`. */
function reporter({ onProgress, now = Date.now }: ClassifyOptions) {
  const began = now();
  let images = 0;
  let failures = 0;
  return ({ evaluations }: Session, result?: Classified | ItemFailure): void => {
    if (result) images++;
    if (result && isFailure(result)) failures++;
    onProgress?.(progressAfter((now() - began) / 1000, { images, failures, evaluations }));
  };
}
