// Compares the errors that two precisions give the same evaluations. Decisions are made from differences between
// candidates on one view, so it matters how much these change, next to how much candidates differ at all.

/** How much errors change from one precision to another. */
export interface Agreement {
  /** The largest change of an error, relative to the error. */
  readonly worst: number;
  /**
   * Root mean square of the change of differences between candidates of a view, relative to that of the differences; 0 if
   * views have one candidate each.
   */
  readonly change: number;
}

/** The most that errors may change in a lower precision. */
export const ALLOWED: Agreement = { worst: 2e-3, change: 0.05 };

/** Returns whether errors change by no more than is allowed. It is false for NaN. */
export const agrees = ({ worst, change }: Agreement): boolean =>
  worst <= ALLOWED.worst && change <= ALLOWED.change;

/**
 * Compares errors [views][candidates] with those of a lower precision. Differences between candidates count as much as they
 * do in a decision: by the weight of their view's level.
 *
 * @param weights the weight of each view's level.
 */
export function agreementOf(
  errors: ArrayLike<number>,
  lower: ArrayLike<number>,
  weights: readonly number[],
): Agreement {
  const candidates = errors.length / weights.length;
  let worst = 0;
  let [changes, spread] = [0, 0];
  weights.forEach((weight, view) => {
    for (let i = view * candidates; i < (view + 1) * candidates; i++) {
      const relative = Math.abs(lower[i]! - errors[i]!) / errors[i]!;
      if (!(relative <= worst)) worst = relative;
      for (let j = view * candidates; j < i; j++) {
        const difference = errors[i]! - errors[j]!;
        changes += (weight * (lower[i]! - lower[j]! - difference)) ** 2;
        spread += (weight * difference) ** 2;
      }
    }
  });
  return { worst, change: candidates === 1 ? 0 : Math.sqrt(changes / spread) };
}
