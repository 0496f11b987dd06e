// How likely an image is under the model, whatever its class: log p(x) up to a constant, from the errors of
// all classes.

import { levelsSeen, type Trial, weightedMean } from './trial.ts';

/** Energies of an image under a model. */
export interface Energies {
  /**
   * -log p(x) up to a constant of the model: the higher, the less the image is like what the model was
   * trained on.
   */
  readonly energy: number;
  /** The number of levels at which every candidate was evaluated; energies are computed from these. */
  readonly energyLevels: number;
  /** -log p(x | class) up to the same constant, by classidx. */
  readonly classes: ReadonlyMap<number, number>;
}

/**
 * Returns the energies of a trial. log p(x | c) = -error / temperature up to a constant, as in the posterior,
 * which for a model of sigmas without a temperature of its own is -Σ weight · error; the class is as likely
 * as its best candidate, and log p(x) = log Σ_c exp(log p(x | c)) - log K, classes being equally likely.
 *
 * Every error is the mean over the levels that all candidates have seen, so that classes are compared on the
 * same noise. Energies of two images can be compared when these levels are the same: always under `all`, and
 * under `staged`, where they are its first stage; under `sequential` each image has its own. `energy` as a
 * score of images that are unlike the training data: Liu et al., NeurIPS 2020, for classifiers of this form.
 *
 * @throws RangeError for a trial without evaluations.
 */
export function energyOf(trial: Trial, temperature: number): Energies {
  const energyLevels = Math.min(...trial.candidates.map((_, c) => levelsSeen(trial, c)));
  if (!(energyLevels > 0)) throw new RangeError('energyOf: expected a trial with evaluations, got none');
  const classes = new Map<number, number>();
  for (const [candidate, { classidx }] of trial.candidates.entries()) {
    const energy = weightedMean(trial, candidate, energyLevels) / temperature;
    classes.set(classidx, Math.min(energy, classes.get(classidx) ?? Number.POSITIVE_INFINITY));
  }
  const least = Math.min(...classes.values());
  let likelihoods = 0;
  for (const energy of classes.values()) likelihoods += Math.exp(least - energy);
  return { energy: least - Math.log(likelihoods / classes.size), energyLevels, classes };
}
