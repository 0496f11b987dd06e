// Shares of images with their uncertainty.

/** A share with its interval, all in [0, 1]. */
export interface Share {
  readonly count: number;
  readonly of: number;
  readonly share: number;
  readonly interval: readonly [low: number, high: number];
}

/** The value that a standard normal exceeds with probability 0.025, to 14 digits. Reports hold intervals of exactly it. */
const Z95 = 1.959963984540046;

/**
 * Returns `count` out of `of` with Wilson's 95 % score interval (Wilson 1927), which stays within [0, 1] and
 * is meaningful even if all or none count. For `of` = 0 the share is 0, with the interval [0, 1].
 */
export function shareOf(count: number, of: number): Share {
  if (of === 0) return { count, of, share: 0, interval: [0, 1] };
  const share = count / of;
  const z = Z95;
  const scale = 1 + (z * z) / of;
  const centre = share + (z * z) / (2 * of);
  const half = z * Math.sqrt((share * (1 - share)) / of + (z * z) / (4 * of * of));
  const low = count === 0 ? 0 : Math.max(0, (centre - half) / scale);
  const high = count === of ? 1 : Math.min(1, (centre + half) / scale);
  return { count, of, share, interval: [low, high] };
}
