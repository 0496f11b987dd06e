// Which of an item's images belongs to which of its captions: Winoground's scores, from the errors of all pairs.

/** Which matches a matrix of errors gets right. */
export interface Matches {
  /** Every image prefers its own caption to the others. */
  readonly text: boolean;
  /** Every caption prefers its own image to the others. */
  readonly image: boolean;
  /** Both. */
  readonly group: boolean;
}

/**
 * Returns the matches of an item (Thrush et al. 2022; Li et al. 2023 score a pair by -error), where
 * `errors[i][j]` is the mean error of image i under caption j and i = j are the pairs that belong together.
 * Preferring is strict: a tie is wrong.
 *
 * The error of an image under no caption says how likely it is by itself. Subtracted from its row, by
 * `lessUnconditional`, it changes no text match, only image matches.
 */
export function matchesOf(errors: readonly (readonly number[])[]): Matches {
  const all = errors.map((_, i) => i);
  const text = all.every((i) => all.every((j) => j === i || errors[i]![i]! < errors[i]![j]!));
  const image = all.every((j) => all.every((i) => i === j || errors[j]![j]! < errors[i]![j]!));
  return { text, image, group: text && image };
}

/** Returns the errors of every image minus its error under the empty caption. */
export const lessUnconditional = (
  errors: readonly (readonly number[])[],
  unconditional: readonly number[],
): number[][] => errors.map((row, i) => row.map((error) => error - unconditional[i]!));

/** A share of items, with the 95 % interval of Li et al.: p +- 1.96 sqrt(p (1 - p) / n), within [0, 1]. */
export interface Score {
  readonly score: number;
  readonly interval: readonly [low: number, high: number];
  readonly correct: number;
}

/** Returns the score of `correct` out of `items`. Without items the score is 0, with the interval [0, 1]. */
export function scoreOf(correct: number, items: number): Score {
  if (items === 0) return { score: 0, interval: [0, 1], correct };
  const score = correct / items;
  const half = 1.96 * Math.sqrt((score * (1 - score)) / items);
  return { score, interval: [Math.max(0, score - half), Math.min(1, score + half)], correct };
}
