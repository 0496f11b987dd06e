// Ownership of opened models. Streams with the same model share its batcher, and the last of them closes it.

import { UsageError } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import type { AbortSignalLike } from '../../host-types.ts';
import { Batcher, type OpenModel } from './batcher.ts';
import { unlessAborted } from './pull.ts';

/** A batcher that several owners may share. It closes, with its model, when the last owner has released it. */
export interface SharedBatcher {
  readonly batcher: Batcher;
  /** Ends the ownership. After the last one, what is in flight rejects with `reason`. A second call does nothing. */
  release(reason?: unknown): void;
  /** Ends the ownership, but lets images in flight finish before the batcher closes. */
  drain(): Promise<void>;
}

interface Entry {
  readonly batcher: Batcher;
  /** Number of owners; infinite for a model that the caller owns. */
  owners: number;
}

const entries = new WeakMap<Model, Entry>();

/** The names of the properties of its model that an opened classifier has. */
export const CLASSIFIER_INFO = [
  'name',
  'device',
  'inputShape',
  'crop',
  'candidates',
  'levels',
  'temperature',
  'slots',
  'batchSize',
] as const satisfies readonly (keyof Model)[];

/** The properties of its model that an opened classifier has. Operators take it as their classifier. */
export type ClassifierInfo = Pick<Model, (typeof CLASSIFIER_INFO)[number]>;

const classifiers = new WeakMap<ClassifierInfo, Batcher>();

/** Registers an object as a classifier that runs on a batcher. Without a batcher, removes it. */
export function register(classifier: ClassifierInfo, batcher: Batcher | undefined): void {
  if (batcher) classifiers.set(classifier, batcher);
  else classifiers.delete(classifier);
}

/** Returns the batcher of an open classifier. Throws `UsageError` for anything else. */
export function batcherOfClassifier(classifier: ClassifierInfo): Batcher {
  const batcher = classifiers.get(classifier);
  if (batcher) return batcher;
  throw new UsageError(
    'expected an open classifier: openClassifier makes one, and after its close() it is no longer usable',
  );
}

/** Returns the batcher of a model that the caller owns: it is never closed or opened again here. */
export function batcherOf(model: Model): Batcher {
  const entry = entries.get(model);
  if (entry) return entry.batcher;
  const batcher = new Batcher(async () => model, model);
  entries.set(model, { batcher, owners: Number.POSITIVE_INFINITY });
  return batcher;
}

/**
 * Opens a model and returns its batcher. If `openModel` returns a model that is open already, its batcher is shared.
 * Throws `UsageError` for a model that was closed when its last owner ended.
 */
export async function acquire(openModel: OpenModel): Promise<SharedBatcher> {
  const model = await openModel();
  let entry = entries.get(model);
  if (entry?.owners === 0)
    throw new UsageError(
      `${model.name}: this model was closed when the stream that owned it ended; to use one model many times, open it with openClassifier`,
    );
  if (!entry) {
    entry = { batcher: new Batcher(openModel, model), owners: 0 };
    entries.set(model, entry);
  }
  const shared = entry;
  shared.owners++;
  let released = false;
  /** Ends this ownership once. Returns whether it was the last one. */
  const isLast = (): boolean => {
    if (released) return false;
    released = true;
    return --shared.owners === 0;
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

/** Opens a model for a stream, and closes it when the stream ends, or at once when the signal aborts. */
export async function* owning<T>(
  openModel: OpenModel,
  signal: AbortSignalLike,
  run: (batcher: Batcher) => AsyncIterable<T>,
): AsyncGenerator<T, undefined> {
  signal.throwIfAborted();
  const { batcher, release } = await unlessAborted(acquire(openModel), signal, (late) => late.release());
  const abort = (): void => release(signal.reason);
  signal.addEventListener('abort', abort);
  try {
    yield* run(batcher);
  } finally {
    signal.removeEventListener('abort', abort);
    release();
  }
}
