// The losses that attacks maximise, as functions of the logits z of one image, with their gradients dL/dz.
// All are written in forms that stay accurate if the classifier is certain, since the small temperature of a
// diffusion classifier makes it certain almost everywhere.

import { sum } from '../../numbers.ts';

/** A loss and its gradient with respect to the logits. */
export interface Loss {
  readonly value: number;
  readonly gradient: Float64Array;
}

/** A loss as a function of the logits. */
export type LossOf = (logits: Float64Array) => Loss;

/** Returns the index of the largest logit, except for those left out; ties go to the first. */
export function argmax(logits: ArrayLike<number>, ...without: readonly number[]): number {
  let best = -1;
  for (let i = 0; i < logits.length; i++)
    if (!without.includes(i) && (best < 0 || logits[i]! > logits[best]!)) best = i;
  return best;
}

/** Returns z_y minus the largest other logit: positive if the classification is right. */
export const marginOf = (logits: Float64Array, label: number): number =>
  logits[label]! - logits[argmax(logits, label)]!;

/** Returns ln sum over j other than `own` of exp(z_j - z_own), and the share of each j in that sum. */
function others(logits: Float64Array, own: number) {
  const most = logits[argmax(logits, own)]!;
  const terms = logits.map((z, j) => (j === own ? 0 : Math.exp(z - most)));
  const total = sum(terms);
  return { log: most - logits[own]! + Math.log(total), shares: terms.map((term) => term / total) };
}

/** Returns ln(1 + e^v), accurate for small and large v. */
const softplus = (v: number): number => (v > 0 ? v + Math.log1p(Math.exp(-v)) : Math.log1p(Math.exp(v)));

/** Returns 1 / (1 + e^-v). */
const logistic = (v: number): number => (v < 0 ? Math.exp(v) / (1 + Math.exp(v)) : 1 / (1 + Math.exp(-v)));

/** Returns the cross-entropy, -ln p_y. Its gradient is p - e_y; 1 - p_y is computed as a sum of small terms. */
export const crossEntropy =
  (label: number): LossOf =>
  (logits) => {
    const { log, shares } = others(logits, label);
    const wrong = logistic(log);
    const gradient = shares.map((share) => wrong * share);
    gradient[label] = -wrong;
    return { value: softplus(log), gradient };
  };

/** Returns ln p_t, which is large if the image is classified as `target`. */
export const targetedCrossEntropy =
  (target: number): LossOf =>
  (logits) => {
    const { value, gradient } = crossEntropy(target)(logits);
    return { value: -value, gradient: gradient.map((g) => -g) };
  };

const descending = (logits: Float64Array): number[] =>
  Array.from(logits, (_, i) => i).sort((a, b) => logits[b]! - logits[a]! || a - b);

/** A linear form of the logits: indices with their factors. */
type Form = readonly (readonly [index: number, factor: number])[];

/**
 * Returns -(z_label - z_other) / (z_top - the mean of the logits `below`), a quotient of two linear forms. It is
 * invariant to shifts and scales of the logits.
 */
function ratio(
  logits: Float64Array,
  label: number,
  other: number,
  top: number,
  below: readonly number[],
): Loss {
  const above: Form = [
    [label, 1],
    [other, -1],
  ];
  const bottom: Form = [[top, 1], ...below.map((i) => [i, -1 / below.length] as const)];
  const at = (form: Form) => sum(form.map(([i, factor]) => factor * logits[i]!));
  const [a, b] = [at(above), at(bottom) + 1e-12];
  const gradient = new Float64Array(logits.length);
  for (const [i, factor] of above) gradient[i]! -= factor / b;
  for (const [i, factor] of bottom) gradient[i]! += (a * factor) / (b * b);
  return { value: -a / b, gradient };
}

/** Difference of logits ratio (Croce and Hein, ICML 2020): -(z_y - max_{i != y} z_i) / (z_1st - z_3rd). */
export const dlr =
  (label: number): LossOf =>
  (logits) => {
    const [first, second, third] = descending(logits) as [number, number, number];
    return ratio(logits, label, first === label ? second : first, first, [third]);
  };

/** Targeted DLR (Croce and Hein, ICML 2020): -(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2). */
export const targetedDlr =
  (label: number, target: number): LossOf =>
  (logits) => {
    const [first, , third, fourth] = descending(logits) as [number, number, number, number];
    return ratio(logits, label, target, first, [third, fourth]);
  };

/** Returns the class that a restart of a targeted attack aims at: the wrong classes by falling logit, over and over. */
export function targetOf(clean: Float64Array, label: number, restart: number): number {
  const without = [label];
  for (let i = restart % (clean.length - 1); i > 0; i--) without.push(argmax(clean, ...without));
  return argmax(clean, ...without);
}
