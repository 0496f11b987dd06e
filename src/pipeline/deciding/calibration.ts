// Measures how well probabilities are calibrated, and fits the temperature that calibrates them by maximum
// likelihood (temperature scaling: Guo et al. 2017, "On Calibration of Modern Neural Networks").

import { UsageError } from '../../errors.ts';
import { sum } from '../../numbers.ts';

/** A labelled image: the weighted mean error of every class, and which class is right. */
export interface ClassErrors {
  readonly errors: readonly number[];
  /** Index into `errors`. */
  readonly truth: number;
}

/** Returns p(class) = softmax(-error / temperature). */
export function probabilities(errors: readonly number[], temperature: number): number[] {
  const least = Math.min(...errors);
  const likelihoods = errors.map((error) => Math.exp((least - error) / temperature));
  const total = sum(likelihoods);
  return likelihoods.map((likelihood) => likelihood / total);
}

/** Returns slope and curvature of the mean negative log-likelihood in beta = 1 / temperature, in which it is convex. */
function slopeAt(images: readonly ClassErrors[], beta: number): { slope: number; curvature: number } {
  let slope = 0;
  let curvature = 0;
  for (const { errors, truth } of images) {
    const p = probabilities(errors, 1 / beta);
    const right = errors[truth]!;
    // Differences to the right class's error are small, so little is lost to cancellation.
    let mean = 0;
    for (const [c, error] of errors.entries()) mean += p[c]! * (error - right);
    let spread = 0;
    for (const [c, error] of errors.entries()) spread += p[c]! * (error - right - mean) ** 2;
    slope -= mean;
    curvature += spread;
  }
  return { slope: slope / images.length, curvature: curvature / images.length };
}

/**
 * Returns the temperature under which the right classes are most likely, to 12 digits, by Newton's method on
 * 1 / temperature, kept between bounds.
 *
 * @throws UsageError if there is no such temperature: without images, if all images are classified correctly
 *   (the likelihood then grows as long as the temperature falls), or if the right classes do not have smaller
 *   errors than the others on average.
 */
export function fitTemperature(images: readonly ClassErrors[]): number {
  if (images.length === 0) throw new UsageError('expected labelled images to fit a temperature to, got none');
  if (images.every(({ errors, truth }) => errors.every((error, c) => c === truth || error > errors[truth]!)))
    throw new UsageError(
      `all ${images.length} images are classified correctly, so the likelihood has no maximum; add images, some of them misclassified`,
    );
  if (slopeAt(images, Number.MIN_VALUE).slope >= 0)
    throw new UsageError(
      'the right classes do not have smaller errors than the others; check that the labels belong to this model',
    );
  let low = 0;
  let high = 1;
  while (slopeAt(images, high).slope < 0) {
    low = high;
    high *= 4;
  }
  let beta = (low + high) / 2;
  for (let k = 0; k < 200; k++) {
    const { slope, curvature } = slopeAt(images, beta);
    if (slope < 0) low = beta;
    else high = beta;
    const newton = beta - slope / curvature;
    const next = newton > low && newton < high ? newton : (low + high) / 2;
    if (Math.abs(next - beta) <= 1e-12 * beta) return 1 / next;
    beta = next;
  }
  return 1 / beta;
}

/** Images whose best class has a probability in (from, to], and how often it was the right one. */
interface ReliabilityBin {
  readonly from: number;
  readonly to: number;
  readonly images: number;
  /** Means over the images; 0 without images. */
  readonly confidence: number;
  readonly accuracy: number;
}

/** How well probabilities are calibrated on labelled images. */
export interface Reliability {
  readonly accuracy: number;
  /** Mean of -ln p(right class). */
  readonly negativeLogLikelihood: number;
  /** Expected calibration error: the mean of |accuracy - confidence| over bins, by their images. */
  readonly expectedCalibrationError: number;
  readonly bins: readonly ReliabilityBin[];
}

/** Measures the probabilities of a temperature on labelled images, in bins of equal width. */
export function reliabilityOf(images: readonly ClassErrors[], temperature: number, bins = 15): Reliability {
  const sums = Array.from({ length: bins }, () => ({ images: 0, confidence: 0, right: 0 }));
  let loss = 0;
  let right = 0;
  for (const { errors, truth } of images) {
    const p = probabilities(errors, temperature);
    const confidence = Math.max(...p);
    const hit = p.indexOf(confidence) === truth ? 1 : 0;
    // ln p is computed directly, since p itself may underflow.
    const least = Math.min(...errors);
    const total = sum(errors.map((error) => Math.exp((least - error) / temperature)));
    loss += (errors[truth]! - least) / temperature + Math.log(total);
    right += hit;
    const bin = sums[Math.min(bins - 1, Math.max(0, Math.ceil(confidence * bins) - 1))]!;
    bin.images++;
    bin.confidence += confidence;
    bin.right += hit;
  }
  const count = images.length;
  return {
    accuracy: right / count,
    negativeLogLikelihood: loss / count,
    expectedCalibrationError: sum(sums.map((bin) => Math.abs(bin.right - bin.confidence))) / count,
    bins: sums.map((bin, i) => ({
      from: i / bins,
      to: (i + 1) / bins,
      images: bin.images,
      confidence: bin.images && bin.confidence / bin.images,
      accuracy: bin.images && bin.right / bin.images,
    })),
  };
}

/**
 * Splits labelled images into those that a temperature is fitted to and those that are held out: a fraction
 * of every class, spread evenly over its images in their order.
 */
export function holdOut(
  images: readonly ClassErrors[],
  fraction: number,
): { readonly fit: ClassErrors[]; readonly heldOut: ClassErrors[] } {
  const seen = new Map<number, number>();
  const fit: ClassErrors[] = [];
  const heldOut: ClassErrors[] = [];
  for (const image of images) {
    const k = seen.get(image.truth) ?? 0;
    seen.set(image.truth, k + 1);
    (Math.floor((k + 1) * fraction) > Math.floor(k * fraction) ? heldOut : fit).push(image);
  }
  return { fit, heldOut };
}
