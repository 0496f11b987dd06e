// A classifier as an attack meets it, and how an attack asks it: with the mean over draws of its randomness.

import type { Loss, LossOf } from './losses.ts';

/**
 * A classifier of images x [c, h, w] in [0, 1], with whatever defence it has. Its randomness is a function of
 * `draw`, any integer from 0: the same draw gives the same answer, and draw 0 is the classifier as it is used.
 */
export interface Defended {
  readonly classes: number;
  readonly shape: readonly [channels: number, height: number, width: number];
  /** Draws that are together the classifier as it is used: 1, or more where a draw is a part of it. */
  readonly period: number;
  /** Logits of one image. */
  logits(x: Float64Array, draw: number): Promise<Float64Array>;
  /**
   * Logits, and the gradient with regard to x of a loss of them; absent where there is none to be had. `cotangent`
   * makes dL/dlogits of the logits.
   */
  gradient?(
    x: Float64Array,
    draw: number,
    cotangent: (logits: Float64Array) => Float64Array,
  ): Promise<{ readonly logits: Float64Array; readonly gradient: Float64Array }>;
}

/** Expectation over transformation: which draws of the defence an attack sees. */
export interface Expectation {
  /** Draws of a query; the loss and the gradient are means over them. */
  readonly eot: number;
  /**
   * Whether the attacker knows the defence's chance. `known`: the same draws in every step, the first of them the one
   * that is used (where that is a period of draws, as many of it as `eot` says, in turn). `fresh`: others in every
   * step, and never those of the first period.
   */
  readonly randomness: 'known' | 'fresh';
}

/** What an attack has spent, in calls of the classifier for one image: a draw counts one. */
export interface Queries {
  logits: number;
  gradients: number;
}

/** Logits at an image. */
export interface Answer {
  /** Mean over the draws. */
  readonly mean: Float64Array;
  /** What the image is judged by: draw 0 where that is known and the whole classifier, else the mean. */
  readonly judged: Float64Array;
}

/** A loss at an image, and its gradient, as means over the draws. */
export interface Evaluated extends Answer {
  readonly value: number;
  readonly gradient: Float64Array;
}

/** A classifier asked by one attack on one image. */
export interface Asked {
  readonly shape: Defended['shape'];
  readonly classes: number;
  readonly queries: Queries;
  /** Logits by the next draws. */
  logits(x: Float64Array): Promise<Answer>;
  /** Loss and gradient by the next draws. */
  evaluate(x: Float64Array, loss: LossOf): Promise<Evaluated>;
}

/** @throws RangeError from `evaluate` where the classifier has no gradients. */
export function ask(defended: Defended, { eot, randomness }: Expectation): Asked {
  const queries: Queries = { logits: 0, gradients: 0 };
  let step = 0;
  const { period } = defended;
  const draws = () => {
    const first = eot * step++;
    return Array.from({ length: eot }, (_, i) =>
      randomness === 'known' ? (first + i) % Math.max(period, eot) : period + first + i,
    );
  };
  const answer = (rows: readonly Float64Array[]): Answer => {
    const mean = meanOf(rows);
    return { mean, judged: randomness === 'known' && period === 1 ? rows[0]! : mean };
  };
  return {
    shape: defended.shape,
    classes: defended.classes,
    queries,
    async logits(x) {
      const all = await Promise.all(draws().map((draw) => defended.logits(x, draw)));
      queries.logits += eot;
      return answer(all);
    },
    async evaluate(x, loss) {
      if (!defended.gradient) throw new RangeError('this classifier has no gradients');
      const losses: Loss[] = [];
      const all = await Promise.all(
        draws().map((draw, i) =>
          defended.gradient!(x, draw, (logits) => {
            losses[i] = loss(logits);
            return losses[i].gradient;
          }),
        ),
      );
      queries.gradients += eot;
      return {
        value: losses.reduce((sum, { value }) => sum + value, 0) / eot,
        gradient: meanOf(all.map(({ gradient }) => gradient)),
        ...answer(all.map(({ logits }) => logits)),
      };
    },
  };
}

function meanOf(rows: readonly Float64Array[]): Float64Array {
  if (rows.length === 1) return rows[0]!;
  const mean = new Float64Array(rows[0]!.length);
  for (const row of rows) for (let i = 0; i < mean.length; i++) mean[i]! += row[i]! / rows.length;
  return mean;
}
