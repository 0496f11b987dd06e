// How to classify, and what is told on the way.

import type { AbortSignalLike } from '../../host-types.ts';
import type { Group, Strategy } from '../deciding/trial.ts';
import type { ResultOptions } from '../deciding/verdict.ts';
import { type ImageInFlight, isImage, type Passing } from '../stream/flight.ts';
import type { User } from '../stream/queues.ts';
import {
  type Classified,
  type EvaluationRecord,
  type ItemFailure,
  isFailure,
  type Progress,
  progressAfter,
} from '../types.ts';

/** How to classify; every field has a default. */
export interface ClassifyOptions extends ResultOptions {
  /** Default: `sequential()`. */
  readonly strategy?: Strategy | undefined;
  /** The most evaluations spent on an image, at least one per candidate; `decided` is false if it ends a trial. */
  readonly budget?: number | undefined;
  /** The seed of the noise. Default: the one the classifier was opened with. */
  readonly seed?: number | bigint | undefined;
  /** Images in flight, at most the classifier's slots, which is the default. */
  readonly concurrency?: number | undefined;
  /** Order of the results; `input` holds back results until those before them are there. Default: `completion`. */
  readonly order?: 'completion' | 'input' | undefined;
  /** Gets the evaluations of an image, level by level, as soon as a round of it is complete; awaited. */
  readonly onEvaluations?: ((records: readonly EvaluationRecord[]) => void | Promise<void>) | undefined;
  /** Called after every round and every image. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Stops at once: the stream rejects with the signal's reason, and its work on the device is dropped. */
  readonly signal?: AbortSignalLike | undefined;
}

/** The same, and whom the stream counts as; by default every stream is a user of its own (see `Batcher.user`). */
export interface StreamOptions extends ClassifyOptions {
  readonly user?: User | undefined;
}

/** Returns what tells `onEvaluations` and `onProgress` of rounds and of results. */
export function monitor({ onEvaluations, onProgress, now = Date.now }: ClassifyOptions) {
  const began = now();
  const counts = { images: 0, failures: 0, evaluations: 0 };
  const report = (): void => onProgress?.(progressAfter((now() - began) / 1000, { ...counts }));
  return {
    async round(image: Passing): Promise<void> {
      if (!isImage(image) || !image.evaluated) return;
      for (const { candidates } of image.evaluated) counts.evaluations += candidates.length;
      if (onEvaluations) await onEvaluations(recordsOf(image, image.evaluated));
      report();
    },
    result(result: Classified | ItemFailure): void {
      counts.images++;
      if (isFailure(result)) counts.failures++;
      report();
    },
  };
}

/** Returns the records of an image's last evaluations. */
function recordsOf({ path, trial }: ImageInFlight, fans: readonly Group[]): EvaluationRecord[] {
  const first = trial.visited.length - fans.length;
  return fans.flatMap(({ level, noise, candidates }, k) => {
    const { t, sigma, weight } = trial.levels[level]!;
    const at = t === undefined ? { sigma: sigma ?? Number.NaN } : { t };
    return candidates.map((candidate) => ({
      path,
      candidate,
      ...at,
      noise,
      weight,
      error: trial.errors[first + k]![candidate]!,
    }));
  });
}
