// Options of a classification, and the calls of its observers.

import type { AbortSignalLike } from '../../host-types.ts';
import type { Group, Strategy } from '../deciding/trial.ts';
import type { ResultOptions } from '../deciding/verdict.ts';
import { type ImageInFlight, isImage, type Passing } from '../stream/flight.ts';
import type { User } from '../stream/jobs.ts';
import {
  type Classified,
  type EvaluationRecord,
  type ItemFailure,
  isFailure,
  type Progress,
  progressAfter,
} from '../types.ts';

/** How to classify. Every field has a default. */
export interface ClassifyOptions extends ResultOptions {
  /** Default: `sequential()`. */
  readonly strategy?: Strategy | undefined;
  /** The largest number of evaluations per image, at least one per candidate. If it ends a trial, `decided` is false. */
  readonly budget?: number | undefined;
  /** The seed of the noise. Default: the seed with which the classifier was opened. */
  readonly seed?: number | bigint | undefined;
  /** Number of images in flight, at most `classifier.slots`, which is the default. */
  readonly concurrency?: number | undefined;
  /** Order of the results. `input` holds results back until all earlier ones are done. Default: `completion`. */
  readonly order?: 'completion' | 'input' | undefined;
  /** Receives the evaluations of an image, level by level, after each of its rounds. A returned promise is awaited. */
  readonly onEvaluations?: ((records: readonly EvaluationRecord[]) => void | Promise<void>) | undefined;
  /** Called after every round and every image. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Stops at once: the stream rejects with the signal's reason, and its work on the device is dropped. */
  readonly signal?: AbortSignalLike | undefined;
}

/** Options with the user that the stream belongs to (see `Batcher.user`). Default: every stream is a separate user. */
export interface StreamOptions extends ClassifyOptions {
  readonly user?: User | undefined;
}

/** Returns functions that call `onEvaluations` and `onProgress` after a round and after a result. */
export function observers({ onEvaluations, onProgress, now = Date.now }: ClassifyOptions) {
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

/** Returns one record for each of an image's last evaluations. */
function recordsOf({ path, trial }: ImageInFlight, groups: readonly Group[]): EvaluationRecord[] {
  const first = trial.visited.length - groups.length;
  return groups.flatMap(({ level, noise, candidates }, k) => {
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
