// Arithmetic on numbers that JavaScript lacks. This file imports nothing, so that every file can import it.

/** Adds numbers in their order. */
export function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/** Multiplies numbers in their order, such as the sides of a shape. */
export function product(values: Iterable<number>): number {
  let total = 1;
  for (const value of values) total *= value;
  return total;
}

/** Returns the number in [low, high] that is nearest to `value`. */
export const clamp = (value: number, low: number, high: number): number =>
  Math.min(high, Math.max(low, value));

/**
 * Returns the quantile `share` in [0, 1] of some values, interpolated linearly between the two nearest ones; NaN if there
 * are none.
 */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

/** Returns the median of some values, the mean of the two middle ones if their number is even; NaN if there are none. */
export const median = (values: readonly number[]): number => quantile(values, 0.5);
