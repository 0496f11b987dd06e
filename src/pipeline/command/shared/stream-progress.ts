// The progress of a stream of images on standard error, with the time that is left.

import type { AbortSignalLike } from '../../../host-types.ts';
import { type Progress, progressAfter } from '../../types.ts';
import { countInputs } from './inputs.ts';
import type { Run } from './run-command.ts';
import type { Surroundings } from './subcommand.ts';

/** Shows the progress of a stream; meanwhile it counts all images of the inputs, until the run ends or `stop`. */
export function followProgress(
  inputs: readonly string[],
  { reporter, quiet }: Pick<Surroundings, 'reporter' | 'quiet'>,
  stop: AbortSignalLike,
  run: Pick<Run, 'atEnd'>,
) {
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
  const progress = {
    /** The last progress of the stream. */
    last: progressAfter(0, { images: 0, failures: 0, evaluations: 0 }),
    /** Images that an earlier run has done. */
    skipped: 0,
    onProgress(now: Progress) {
      progress.last = now;
      reporter.progress(now, progress.skipped, total);
    },
    onSkip() {
      progress.skipped++;
    },
  };
  return progress;
}
