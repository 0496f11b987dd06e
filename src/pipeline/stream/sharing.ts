// Who owns an opened model. Streams that are given the same model share its batcher, and the last one closes it.

import { UsageError } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import { Batcher, type OpenModel } from './batcher.ts';

/** A share in a batcher. The batcher ends, and its model closes, when the last share is released. */
export interface Share {
  readonly batcher: Batcher;
  /** Gives the share back; if it is the last one, what is in flight rejects with `reason`. A second call does nothing. */
  release(reason?: unknown): void;
  /** The same, but if it is the last share, images in flight finish first. */
  drain(): Promise<void>;
}

interface Entry {
  readonly batcher: Batcher;
  /** Infinite for a model that stays its caller's. */
  shares: number;
}

const entries = new WeakMap<Model, Entry>();

/** What an opened classifier tells of its model, and what operators take as one. */
export type ClassifierInfo = Pick<
  Model,
  'name' | 'device' | 'inputShape' | 'crop' | 'candidates' | 'levels' | 'temperature' | 'slots' | 'batchSize'
>;

const classifiers = new WeakMap<ClassifierInfo, Batcher>();

/** Makes an object known as a classifier that runs on a batcher; without one, it is a classifier no more. */
export function register(classifier: ClassifierInfo, batcher: Batcher | undefined): void {
  if (batcher) classifiers.set(classifier, batcher);
  else classifiers.delete(classifier);
}

/** Returns the batcher of an open classifier. @throws UsageError for anything else. */
export function batcherOfClassifier(classifier: ClassifierInfo): Batcher {
  const batcher = classifiers.get(classifier);
  if (batcher) return batcher;
  throw new UsageError(
    'expected an open classifier: openClassifier makes one, and after its close() it is no longer usable',
  );
}

/** Returns the batcher of a model that stays its caller's: nobody here closes it, or opens it again. */
export function batcherOf(model: Model): Batcher {
  const entry = entries.get(model);
  if (entry) return entry.batcher;
  const batcher = new Batcher(async () => model, model);
  entries.set(model, { batcher, shares: Number.POSITIVE_INFINITY });
  return batcher;
}

/**
 * Opens a model, or joins those who were given the same model object before.
 *
 * @throws UsageError for a model that was closed when the last of its users ended.
 */
export async function acquire(openModel: OpenModel): Promise<Share> {
  const model = await openModel();
  let entry = entries.get(model);
  if (entry?.shares === 0)
    throw new UsageError(
      `${model.name}: this model was closed when the stream that owned it ended; to use one model many times, open it with openClassifier`,
    );
  if (!entry) {
    entry = { batcher: new Batcher(openModel, model), shares: 0 };
    entries.set(model, entry);
  }
  const shared = entry;
  shared.shares++;
  let released = false;
  /** Gives the share back once; true if it was the last one. */
  const isLast = (): boolean => {
    if (released) return false;
    released = true;
    return --shared.shares === 0;
  };
  return {
    batcher: shared.batcher,
    release: (reason) => {
      if (isLast()) shared.batcher.close(reason);
    },
    drain: async () => {
      if (isLast()) await shared.batcher.drain();
    },
  };
}
