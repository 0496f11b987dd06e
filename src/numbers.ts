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
