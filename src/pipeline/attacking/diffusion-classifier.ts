// A diffusion model as a classifier to attack: logits from its weighted mean errors, and their gradients with
// regard to the image.

import { ModelError } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import { product, sum } from '../../numbers.ts';
import { ascending } from '../deciding/levels.ts';
import type { Batcher, LeasedImage } from '../stream/batcher.ts';
import { batcherOf, batcherOfClassifier, type ClassifierInfo } from '../stream/sharing.ts';
import type { Defended } from './defended.ts';

export interface ClassifierOptions {
  /**
   * The number of levels per draw: consecutive levels in visiting order; each draw continues where the
   * previous one ended. All levels if absent.
   */
  readonly levelsPerDraw?: number | undefined;
}

/** A classifier whose classes have names and numbers. */
export interface DiffusionClassifier extends Defended {
  /** The class of each logit. */
  readonly labels: readonly { readonly label: string; readonly classidx: number }[];
}

/** A class is left out of a gradient if its derivative is below this share of the largest one. */
const NEGLIGIBLE = 1e-6;

/**
 * Returns a model as a classifier that visits its whole grid: the logit of a class is -(weighted mean error of its best
 * candidate) / temperature, with noise common to all candidates. Visits are numbered across draws, and visit j uses
 * noise j at level j modulo the grid (with a file of noises: at the j-th level in ascending order). So draw 0 of the
 * whole grid makes the same evaluations as `all()`, with the same errors to the bit.
 *
 * The gradient is the sum over candidates and levels of dL/dlogit_c · (-w / (W · temperature)) · d error / dx, in f64
 * in the order of the levels (if one run computes all classes of a view, the sum within the view is in f32). The errors
 * of all candidates are computed first, so that gradients are computed only for candidates that matter to the loss.
 *
 * @param source an open classifier, which recovers from a lost device, or a model, which stays the caller's.
 * @throws ModelError for a model without classes.
 */
export function diffusionClassifier(
  source: Model | ClassifierInfo,
  options: ClassifierOptions = {},
): DiffusionClassifier {
  return classifierBy('encode' in source ? batcherOf(source) : batcherOfClassifier(source), options);
}

/** The same for a model that a batcher runs. */
export function classifierBy(batcher: Batcher, options: ClassifierOptions = {}): DiffusionClassifier {
  const { model } = batcher;
  const { name, candidates, levels, temperature, inputShape } = model;
  const user = batcher.user();
  const order = model.noisePairing === 'visit' ? ascending(levels) : levels.map((_, level) => level);
  const named = candidates
    .map((candidate, index) => ({ ...candidate, index }))
    .filter((c) => c.classidx >= 0);
  const classes = [...new Set(named.map(({ classidx }) => classidx))];
  if (classes.length < 2)
    throw new ModelError(`${name}: expected two classes or more, got ${classes.length}`);
  const weighted = levels.some(({ weight }) => weight > 0);
  const weightAt = (level: number) => (weighted ? levels[level]!.weight : 1);
  const count = Math.min(options.levelsPerDraw ?? levels.length, levels.length);
  const length = product(inputShape);

  /** Returns the levels that a draw visits, with their noise and their share of the weight. */
  const visits = (draw: number) => {
    const all = Array.from({ length: count }, (_, i) => {
      const noise = draw * count + i;
      const level = order[noise % levels.length]!;
      return { noise, level, weight: weightAt(level) };
    });
    const total = sum(all.map(({ weight }) => weight));
    const scale = total > 0 ? 1 / total : 1 / all.length;
    return all
      .map((visit) => ({ ...visit, weight: (total > 0 ? visit.weight : 1) * scale }))
      .filter(({ weight }) => weight > 0);
  };
  type Visits = ReturnType<typeof visits>;

  const askingOf = (among: readonly number[], seen: Visits) => ({
    candidate: seen.flatMap(() => among),
    level: seen.flatMap(({ level }) => among.map(() => level)),
    noise: seen.flatMap(({ noise }) => among.map(() => noise)),
  });

  /** Returns the logits by class, and the best candidate of each class. */
  const standing = (errors: Float64Array) => {
    const best = classes.map((classidx) =>
      named
        .filter((candidate) => candidate.classidx === classidx)
        .reduce((one, other) => (errors[other.index]! < errors[one.index]! ? other : one)),
    );
    return { best, logits: Float64Array.from(best, ({ index }) => -errors[index]! / temperature) };
  };

  /** Puts an image on the device for as long as `use` runs. */
  const leased = async <T>(x: Float64Array, use: (lease: LeasedImage) => Promise<T>): Promise<T> => {
    const lease = await batcher.lease(user, toModel(x));
    try {
      return await use(lease);
    } finally {
      lease.release();
    }
  };

  /** Returns the weighted mean errors of all candidates, summed in the order of the levels. */
  const meanErrors = async ({ errors }: LeasedImage, seen: Visits): Promise<Float64Array> => {
    const means = new Float64Array(candidates.length);
    for (const [i, error] of (await errors(askingOf(all, seen))).entries())
      means[all[i % all.length]!]! += seen[Math.floor(i / all.length)]!.weight * error;
    return means;
  };

  const toModel = (x: Float64Array) => Float32Array.from(x, (v) => 2 * v - 1);
  const all = named.map(({ index }) => index);

  return {
    classes: classes.length,
    shape: inputShape,
    period: Math.ceil(levels.length / count),
    labels: classes.map((classidx) => named.find((candidate) => candidate.classidx === classidx)!),
    logits: (x, draw) => leased(x, async (lease) => standing(await meanErrors(lease, visits(draw))).logits),
    ...(model.differentiable && {
      gradient: (x, draw, cotangent) =>
        leased(x, async (lease) => {
          const seen = visits(draw);
          const { best, logits } = standing(await meanErrors(lease, seen));
          const by = cotangent(logits);
          const most = by.reduce((max, v) => Math.max(max, Math.abs(v)), 0);
          const matter = best
            .map(({ index }, c) => ({ index, factor: (-2 * by[c]!) / temperature, by: Math.abs(by[c]!) }))
            .filter((one) => one.by > NEGLIGIBLE * most);
          const gradient = new Float64Array(length);
          const among = matter.map(({ index }) => index);
          const factorOf = (c: number, visit: number) => matter[c]!.factor * seen[visit]!.weight;
          const add = (row: Float32Array, factor: number) => {
            for (let k = 0; k < length; k++) gradient[k]! += factor * row[k]!;
          };
          if (lease.sums) {
            const [level, noise] = [seen.map((visit) => visit.level), seen.map((visit) => visit.noise)];
            const weights = (i: number) => among.map((_, c) => factorOf(c, i));
            await lease.sums({ level, noise, candidates: among, weights }, (_, __, row) => add(row, 1));
          } else
            await lease.gradients(askingOf(among, seen), (i, _, row) =>
              add(row, factorOf(i % among.length, Math.floor(i / among.length))),
            );
          return { logits, gradient };
        }),
    }),
  };
}
