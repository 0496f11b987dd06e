// How the kernel families store attention scores that go through memory.

import type { Family } from '../device/families.ts';

interface ScoreLayout {
  /** The most bytes of scores at a time: they are computed and used in parts, so that long sequences need no huge scratch. */
  readonly bytes: number;
  /** Queries whose scores lie together in memory, a divisor of `QUERY_STEP`; undefined for all queries of a part. */
  readonly queryBlock?: number;
}

const GPU: ScoreLayout = { bytes: 64 * 2 ** 20 };

export const SCORE_LAYOUTS: Readonly<Record<Family, ScoreLayout>> = {
  subgroup: { bytes: 8 * 2 ** 20, queryBlock: 64 },
  plain: { bytes: 8 * 2 ** 20, queryBlock: 128 },
  tile: GPU,
  matrix: GPU,
};
