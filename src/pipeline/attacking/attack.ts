// The frame of all attacks: the image and the ball, the starting point, the best point, and the restarts.

import { l2 } from '../norms.ts';
import { type Ball, project } from './ball.ts';
import { type Asked, ask, type Defended, type Expectation, type Queries } from './defended.ts';
import { argmax, marginOf } from './losses.ts';
import { type Random, randomOf } from './random.ts';

/** One run of an attack on one image. */
export interface AttackTrial {
  readonly asked: Asked;
  /** The image [c, h, w] in [0, 1]. */
  readonly centre: Float64Array;
  /** Its true class. */
  readonly label: number;
  readonly ball: Ball;
  readonly random: Random;
  /** Which restart this is, from 0. */
  readonly restart: number;
  /** Logits of the clean image, by which targets are chosen. */
  readonly clean: Float64Array;
  /**
   * Reports a point: the loss there, which the attack makes large, and the logits by which it is judged.
   * Returns true if the image is broken, so that the attack can end.
   */
  readonly keep: (x: Float64Array, value: number, logits: Float64Array) => Promise<boolean>;
}

/** An attack. It reports every point that it visits to `keep`. */
export type Attack = (trial: AttackTrial) => Promise<void>;

/** An image to attack. */
export interface AttackedImage {
  /** [c, h, w] in [0, 1]. */
  readonly x: Float64Array;
  readonly label: number;
  /** Seeds the attack's random numbers, together with the seed. */
  readonly key: string;
}

export interface AttackOptions extends Ball, Expectation {
  readonly attack: Attack;
  /** The attack's name, which also seeds its random numbers. */
  readonly name: string;
  readonly restarts: number;
  readonly seed: number;
  /**
   * Returns whether a point breaks the image. It is called for points that the attack's own logits classify
   * wrong. Without it no attack ends early, and the point with the largest loss counts.
   */
  readonly verify?: ((x: Float64Array) => Promise<boolean>) | undefined;
}

/** The result of an attack. */
export interface Attacked {
  /** In the ball and in [0, 1]: the point that broke the image, or else the one with the largest loss. */
  readonly x: Float64Array;
  /** True if `verify` found that the image is broken. */
  readonly broken: boolean;
  readonly queries: Queries;
}

/** Returns a random point: uniform in the ball for linf, on its surface for l2; then projected into [0, 1]. */
export function startIn(ball: Ball, centre: Float64Array, random: Random): Float64Array {
  const noise = centre.map(() => (ball.norm === 'linf' ? 2 * random.uniform() - 1 : random.normal()));
  const scale = ball.norm === 'linf' ? ball.eps : ball.eps / l2(noise);
  return project(
    ball,
    centre.map((v, i) => v + scale * noise[i]!),
    centre,
  );
}

/**
 * Attacks one image, restart by restart, until it is broken. The result depends on the image, its key and the
 * seed alone. Losses of different targets cannot be compared, so the point of a later restart counts only if
 * its margin (mean over draws) is at most as large.
 */
export async function attackImage(
  defended: Defended,
  { x, label, key }: AttackedImage,
  { attack, name, restarts, seed, verify, norm, eps, ...expectation }: AttackOptions,
): Promise<Attacked> {
  const asked = ask(defended, expectation);
  const { judged: clean } = await asked.logits(x);
  let best = { x, margin: marginOf(clean, label) };
  let broken = false;
  const isBroken = async (point: Float64Array, logits: Float64Array): Promise<boolean> => {
    if (!verify || argmax(logits) === label) return false;
    broken = await verify(point);
    if (broken) best = { x: point, margin: marginOf(logits, label) };
    return broken;
  };
  if (await isBroken(x, clean)) return { x, broken, queries: asked.queries };
  for (let restart = 0; restart < restarts && !broken; restart++) {
    let top = Number.NEGATIVE_INFINITY;
    let found: typeof best | undefined;
    await attack({
      asked,
      centre: x,
      label,
      ball: { norm, eps },
      random: randomOf(seed, key, `${name} ${restart}`),
      restart,
      clean,
      async keep(point, value, logits) {
        if (await isBroken(point, logits)) return true;
        if (value > top) {
          top = value;
          found = { x: point, margin: marginOf(logits, label) };
        }
        return false;
      },
    });
    if (!broken && found && found.margin <= best.margin) best = found;
  }
  return { x: best.x, broken, queries: asked.queries };
}
