// An attack on one image from its beginning to what is reported of it.

import { distance } from '../norms.ts';
import { attackImage } from './attack.ts';
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

/** Who is attacked, how far an image may go, and who says whether it is broken. */
export interface Campaign extends Ball, Expectation {
  /** What the attack sees. */
  readonly attacked: Defended;
  /** The classifier as it is used, whose draw 0 counts. */
  readonly judge: Defended;
  /** What the attack finds is judged once, at its end, because it sees another classifier than the judge. */
  readonly transfer?: boolean | undefined;
  readonly seed: number;
}

/** What a classifier says of an image. */
export interface Prediction {
  /** Place of the largest logit. */
  readonly prediction: number;
  /** z_y less the largest other logit: negative where the label y is missed. */
  readonly margin: number;
}

/** The judge's word on an image x [c, h, w] in [0, 1]. */
export async function judged(judge: Defended, x: Float64Array, label: number): Promise<Prediction> {
  const logits = await judge.logits(x, 0);
  return { prediction: argmax(logits), margin: marginOf(logits, label) };
}

/** What came of an attack on an image. */
export interface Outcome extends Prediction {
  /** As 8 bits: what the PNG file holds. */
  readonly quantised: Prediction;
  /** Wrong as it was found, or as 8 bits. */
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
 * Attacks an image [c, h, w] in [0, 1], itself of 8 bits, and judges what comes of it, as it is and as 8 bits. Where
 * the attacker knows the defence's chance, the judge is asked on the way and the first point it gets wrong counts;
 * where the chance is fresh, or the attack is a transfer, the point of the largest loss is judged once.
 */
export async function attackAndJudge(
  { attacked, judge, transfer = false, seed, norm, eps, eot, randomness }: Campaign,
  { attack, restarts, ...choice }: AttackPlan,
  victim: { readonly x: Float64Array; readonly label: number; readonly key: string },
): Promise<Outcome> {
  const { label } = victim;
  const sees = attacked === judge && attacked.period === 1;
  const verify = async (x: Float64Array) => sees || (await judged(judge, x, label)).margin < 0;
  const found = await attackImage(attacked, victim, {
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
  const x = quantise(found.x, victim.x, { norm, eps });
  const [raw, quantised] = await Promise.all([judged(judge, found.x, label), judged(judge, x, label)]);
  return {
    ...raw,
    quantised,
    broken: raw.prediction !== label || quantised.prediction !== label,
    linf: distance('linf', x, victim.x),
    l2: distance('l2', x, victim.x),
    queries: found.queries,
    x,
    found: found.x,
  };
}
