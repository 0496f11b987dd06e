// Whether an image is like those that a model was trained on. A classifier returns one of its classes for any
// image. The errors of all classes at one noise level, which every strategy evaluates anyway, show whether
// that class means anything.

import type { Familiar } from '../../graph/model.ts';
import type { Trial } from './trial.ts';

/**
 * Returns the squared Mahalanobis distance of an image to the nearest class, in the space of the square roots of its
 * errors in all classes at one level (class-conditional Gaussians with a shared covariance: Lee et al., NeurIPS 2018,
 * there of a classifier's features). Square roots of mean squared errors are amplitudes, whose spread within a class is
 * nearly normal; errors themselves and their logarithms recognised unfamiliar images less well.
 */
export function distanceOf(
  errors: ArrayLike<number>,
  { means, precision }: Pick<Familiar, 'means' | 'precision'>,
) {
  const roots = Array.from(errors, Math.sqrt);
  let least = Number.POSITIVE_INFINITY;
  for (const mean of means) {
    let distance = 0;
    for (let i = 0; i < roots.length; i++)
      for (let j = 0; j < roots.length; j++)
        distance += (roots[i]! - mean[i]!) * precision[i]![j]! * (roots[j]! - mean[j]!);
    if (distance < least) least = distance;
  }
  return least;
}

/** Returns the errors of all classes at the level of `familiar`; undefined if the trial does not have them all. */
function errorsAt(trial: Trial, { t, sigma, means }: Familiar): Float32Array | undefined {
  const { candidates, levels, visited } = trial;
  const k = visited.findIndex((level) => levels[level]!.t === t && levels[level]!.sigma === sigma);
  const errors = trial.errors[k];
  const allClasses =
    candidates.length === means.length && candidates.every(({ classidx }, index) => classidx === index);
  return errors && allClasses && !errors.some(Number.isNaN) ? errors : undefined;
}

/**
 * Returns true if an image lies outside what the model was trained on. Returns false if that is unknown: if the model's
 * card does not have the means, the level was not visited, or not all of the model's classes were candidates.
 */
export function isUnfamiliar(trial: Trial, familiar: Familiar | undefined): boolean {
  const errors = familiar && errorsAt(trial, familiar);
  return errors !== undefined && distanceOf(errors, familiar!) > familiar!.threshold;
}
