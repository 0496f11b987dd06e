// The progress of a stream of images on standard error, with the time that is left.

import type { AbortSignalLike } from '../../../host-types.ts';
import type { Progress } from '../../types.ts';
import { countInputs } from './inputs.ts';
import type { Run } from './run-command.ts';
import type { Surroundings } from './subcommand.ts';

/** What a stream tells of its progress. */
export interface StreamProgress {
  /** Takes the progress of the stream. */
  readonly onProgress: (now: Progress) => void;
  /** Counts an image that an earlier run has done. */
  readonly onSkip: () => void;
  /** The last progress. */
  readonly last: Progress;
  /** Images that an earlier run has done. */
  readonly skipped: number;
}

/** Shows the progress of a stream; meanwhile it counts all images of the inputs, until the run ends or `stop`. */
export function followProgress(
  inputs: readonly string[],
  { reporter, quiet }: Pick<Surroundings, 'reporter' | 'quiet'>,
  stop: AbortSignalLike,
  run: Pick<Run, 'atEnd'>,
): StreamProgress {
  let last: Progress = { images: 0, failures: 0, evaluations: 0, seconds: 0, imagesPerSecond: 0 };
  let skipped = 0;
  let total: number | undefined;
  const ended = new AbortController();
  const counting = async () => {
    total = await countInputs(inputs, AbortSignal.any([ended.signal, stop]));
  };
  const counted = quiet ? undefined : counting().catch(() => undefined);
  run.atEnd(() => {
    ended.abort();
    return counted;
  });
  return {
    onProgress(now) {
      last = now;
      reporter.progress(now, skipped, total);
    },
    onSkip() {
      skipped++;
    },
    get last() {
      return last;
    },
    get skipped() {
      return skipped;
    },
  };
}
