// The statistics of a peer's samples.

import { median } from '../../src/numbers.ts';

export interface Summary {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  /** Half of the range of the middle half of the samples, relative to the median. */
  readonly spread: number;
  readonly samples: number;
}

/** @throws Error if there are no samples. */
export function summarise(samples: readonly number[]): Summary {
  if (samples.length === 0) throw new Error('expected at least one sample, got none');
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))]!;
  const middle = median(sorted);
  return {
    median: middle,
    least: sorted[0]!,
    most: sorted.at(-1)!,
    spread: (at(0.75) - at(0.25)) / (2 * middle),
    samples: sorted.length,
  };
}
