// What all attacks share: the image, the ball, where they begin, what they keep, and the restarts.

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
   * Tells of a point: the loss there, which is to be large, and the logits it is judged by. True where the image is
   * broken, and the attack can end.
   */
  readonly keep: (x: Float64Array, value: number, logits: Float64Array) => Promise<boolean>;
}

/** An attack, which tells `keep` of every point it has been at. */
export type Attack = (trial: AttackTrial) => Promise<void>;

/** An image to be attacked. */
export interface AttackedImage {
  /** [c, h, w] in [0, 1]. */
  readonly x: Float64Array;
  readonly label: number;
  /** What the attack's chance comes from, beside the seed. */
  readonly key: string;
}

export interface AttackOptions extends Ball, Expectation {
  readonly attack: Attack;
  /** Names the attack's stream of chance. */
  readonly name: string;
  readonly restarts: number;
  readonly seed: number;
  /**
   * Whether a point that the attacked classifier gets wrong breaks the image: asked where the attack's own logits
   * say so. Without it no attack ends early, and the point of the largest loss counts.
   */
  readonly verify?: ((x: Float64Array) => Promise<boolean>) | undefined;
}

/** What came of it. */
export interface Attacked {
  /** In the ball and in [0, 1]: where the image was broken, or else where the loss was largest. */
  readonly x: Float64Array;
  /** True where `verify` said that the image is broken. */
  readonly broken: boolean;
  readonly queries: Queries;
}

/** A random point: in linf uniform in the ball, in l2 on its surface; then within [0, 1]. */
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
 * Attacks one image, restart by restart, until it is broken. What comes of an image depends on it, its key and the
 * seed alone. The losses of targets are not comparable with each other, so the point of a later restart counts
 * only where its margin (mean over draws) is smaller.
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
