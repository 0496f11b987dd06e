// A whole attack on one image, up to the result that is reported.

import { distance } from '../norms.ts';
import { type AttackedImage, attackImage } from './attack.ts';
import { type AttackChoice, type AttackName, attackOf } from './attacks.ts';
import type { Ball } from './ball.ts';
import type { Defended, Expectation, Queries } from './defended.ts';
import { argmax, marginOf } from './losses.ts';
import { quantise } from './quantise.ts';

/** An attack with its settings. */
export interface AttackPlan extends AttackChoice {
  readonly attack: AttackName;
  readonly restarts: number;
}

/** The classifier that is attacked, how far an image may be changed, and the classifier that judges the result. */
export interface Campaign extends Ball, Expectation {
  /** The classifier that the attack sees. */
  readonly attacked: Defended;
  /** The classifier as it is used, whose draw 0 counts. */
  readonly judge: Defended;
  /** If true, the attack sees another classifier than the judge, so its result is judged only once, at the end. */
  readonly transfer?: boolean | undefined;
  readonly seed: number;
}

/** The prediction of a classifier for an image. */
export interface Prediction {
  /** Index of the largest logit. */
  readonly prediction: number;
  /** z_y minus the largest other logit: negative if the image is classified wrong. */
  readonly margin: number;
}

/** Judges an image x [c, h, w] in [0, 1]. */
export async function judged(judge: Defended, x: Float64Array, label: number): Promise<Prediction> {
  const logits = await judge.logits(x, 0);
  return { prediction: argmax(logits), margin: marginOf(logits, label) };
}

/** The judged result of an attack on an image. */
export interface Outcome extends Prediction {
  /** The prediction for the image as 8 bits, as the PNG file holds it. */
  readonly quantised: Prediction;
  /** Classified wrong, as it was found or as 8 bits. */
  readonly broken: boolean;
  /** Distances of the 8-bit image, in [0, 1] pixel units. */
  readonly linf: number;
  readonly l2: number;
  readonly queries: Queries;
  /** The image as 8 bits, and as it was found before: [c, h, w] in [0, 1]. */
  readonly x: Float64Array;
  readonly found: Float64Array;
}

/**
 * Attacks an image [c, h, w] in [0, 1], itself of 8 bits, and judges the result, as it is and as 8 bits. If
 * the attacker knows the defence's random numbers, the judge is asked during the attack, and the first point
 * that it classifies wrong counts. If the random numbers are fresh, or the attack is a transfer, the point
 * with the largest loss is judged once.
 */
export async function attackAndJudge(
  { attacked, judge, transfer = false, seed, norm, eps, eot, randomness }: Campaign,
  { attack, restarts, ...choice }: AttackPlan,
  image: AttackedImage,
): Promise<Outcome> {
  const { label } = image;
  const sees = attacked === judge && attacked.period === 1;
  const verify = async (x: Float64Array) => sees || (await judged(judge, x, label)).margin < 0;
  const found = await attackImage(attacked, image, {
    attack: attackOf(attack, choice, attacked.classes),
    name: attack,
    restarts,
    seed,
    norm,
    eps,
    eot,
    randomness,
    verify: transfer || randomness === 'fresh' ? undefined : verify,
  });
  const x = quantise(found.x, image.x, { norm, eps });
  const [raw, quantised] = await Promise.all([judged(judge, found.x, label), judged(judge, x, label)]);
  return {
    ...raw,
    quantised,
    broken: raw.prediction !== label || quantised.prediction !== label,
    linf: distance('linf', x, image.x),
    l2: distance('l2', x, image.x),
    queries: found.queries,
    x,
    found: found.x,
  };
}
