// A classifier with its defence, and how an attack queries it: as means over draws of its randomness.

import type { Loss, LossOf } from './losses.ts';

/**
 * A classifier of images x [c, h, w] in [0, 1], including its defence. Its randomness is a function of `draw`, an
 * integer of 0 or more: the same draw gives the same logits, and draw 0 is the classifier as it is used.
 */
export interface Defended {
  readonly classes: number;
  readonly shape: readonly [channels: number, height: number, width: number];
  /** The number of draws that together are the classifier as it is used: more than 1 if each draw is only a part. */
  readonly period: number;
  /** Returns the logits of one image. */
  logits(x: Float64Array, draw: number): Promise<Float64Array>;
  /**
   * Returns the logits, and the gradient of a loss with respect to x; absent if the classifier has no
   * gradients. `cotangent` computes dL/dlogits from the logits.
   */
  gradient?(
    x: Float64Array,
    draw: number,
    cotangent: (logits: Float64Array) => Float64Array,
  ): Promise<{ readonly logits: Float64Array; readonly gradient: Float64Array }>;
}

/** Expectation over transformation: which draws of the defence an attack sees. */
export interface Expectation {
  /** Draws per query; the loss and the gradient are means over them. */
  readonly eot: number;
  /**
   * Whether the attacker knows the defence's random numbers. `known`: every step uses the same draws, the
   * first of which is the one that is used (if a period of draws is used, steps take `eot` of its draws in
   * turn). `fresh`: every step uses new draws, never those of the first period.
   */
  readonly randomness: 'known' | 'fresh';
}

/** The queries of an attack: calls of the classifier for one image. Each draw counts as one. */
export interface Queries {
  logits: number;
  gradients: number;
}

/** Logits of an image. */
export interface Answer {
  /** The mean over the draws. */
  readonly mean: Float64Array;
  /** The logits that judge the image: draw 0 if it is known and is the whole classifier, else the mean. */
  readonly judged: Float64Array;
}

/** The loss of an image and its gradient, as means over the draws. */
export interface Evaluated extends Answer {
  readonly value: number;
  readonly gradient: Float64Array;
}

/** A classifier as one attack on one image queries it. */
export interface Asked {
  readonly shape: Defended['shape'];
  readonly classes: number;
  readonly queries: Queries;
  /** Returns the logits by the next draws. */
  logits(x: Float64Array): Promise<Answer>;
  /** Returns the loss and its gradient by the next draws. */
  evaluate(x: Float64Array, loss: LossOf): Promise<Evaluated>;
}

/** Returns a classifier to query. @throws RangeError from `evaluate` if the classifier has no gradients. */
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
