// Fits `familiar` of a model's card: the statistics of the errors of training images, and the threshold (see
// `familiarity.ts`, which uses them).

import type { Familiar } from '../src/index.ts';

/** The errors of an image in all classes at one level, and its class. */
export interface LabelledErrors {
  readonly errors: ArrayLike<number>;
  readonly label: number;
}

/**
 * Fits the means of the classes and their shared covariance to images of all classes.
 *
 * @throws RangeError if a class has no images, or the covariance is singular.
 */
export function fitClasses(images: readonly LabelledErrors[]): Pick<Familiar, 'means' | 'precision'> {
  const classes = images[0]?.errors.length ?? 0;
  const means = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  const counts = new Array<number>(classes).fill(0);
  for (const { errors, label } of images) {
    counts[label]!++;
    for (let i = 0; i < classes; i++) means[label]![i]! += Math.sqrt(errors[i]!);
  }
  const empty = counts.indexOf(0);
  if (classes === 0 || empty >= 0) throw new RangeError(`fitClasses: class ${empty} has no images`);
  means.forEach((mean, label) => {
    for (let i = 0; i < classes; i++) mean[i]! /= counts[label]!;
  });
  const covariance = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  for (const { errors, label } of images) {
    const offsets = means[label]!.map((mean, i) => Math.sqrt(errors[i]!) - mean);
    for (let i = 0; i < classes; i++)
      for (let j = 0; j < classes; j++)
        covariance[i]![j]! += (offsets[i]! * offsets[j]!) / (images.length - classes);
  }
  return { means, precision: inverse(covariance) };
}

/** Returns the inverse of a symmetric positive definite matrix, by Gauss-Jordan elimination. */
function inverse(matrix: readonly (readonly number[])[]): number[][] {
  const n = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...Array.from({ length: n }, (_, j) => (i === j ? 1 : 0))]);
  for (let pivot = 0; pivot < n; pivot++) {
    const scale = rows[pivot]![pivot]!;
    if (!(scale > 0)) throw new RangeError('fitClasses: the covariance of the errors is singular');
    rows[pivot] = rows[pivot]!.map((value) => value / scale);
    for (let i = 0; i < n; i++) {
      if (i === pivot) continue;
      const factor = rows[i]![pivot]!;
      rows[i] = rows[i]!.map((value, j) => value - factor * rows[pivot]![j]!);
    }
  }
  return rows.map((row) => row.slice(n));
}

/**
 * Returns the smallest threshold that at most a share `falseAlarms` of familiar images is expected to exceed,
 * from the distances of `n` such images that the means were not fitted to: their ceil((n + 1) (1 -
 * falseAlarms))-th smallest (the conformal quantile, which needs no assumption on their distribution).
 *
 * @throws RangeError if there are too few of them for that rate.
 */
export function thresholdOf(distances: readonly number[], falseAlarms: number): number {
  const sorted = [...distances].sort((a, b) => a - b);
  const threshold = sorted[Math.ceil((sorted.length + 1) * (1 - falseAlarms)) - 1];
  if (threshold === undefined)
    throw new RangeError(`thresholdOf: ${sorted.length} images are too few for a rate of ${falseAlarms}`);
  return threshold;
}
