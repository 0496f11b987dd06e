// The evaluations of a group, on the image that they are for.

import type { Group } from '../deciding/trial.ts';
import type { LeasedImage } from './batcher.ts';

/** Evaluates a group: returns the errors of its candidates, in their order. */
export function groupErrors(
  lease: Pick<LeasedImage, 'errors'>,
  { candidates, level, noise }: Group,
): Promise<Float32Array> {
  const count = candidates.length;
  return lease.errors({
    candidate: candidates,
    level: new Uint32Array(count).fill(level),
    noise: new Uint32Array(count).fill(noise),
  });
}
