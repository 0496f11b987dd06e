// Evaluates models in f32 and in f16 and compares their errors.

import { type Agreement, agreementOf } from '../../src/graph/evaluation/agreement.ts';
import type { Model } from '../../src/graph/model.ts';

/** The errors of some views, [views][candidates], and the weight of each view's level. */
interface Evaluated {
  readonly errors: readonly number[];
  readonly weights: readonly number[];
}

/** How much errors change, also on average: a single error can be far from the others. */
interface Comparison extends Agreement {
  /** Root mean square of the changes of errors, relative to the errors. */
  readonly rms: number;
}

/** Evaluates every candidate on views of some images, at some levels each, from all of the grid. Closes the model. */
async function evaluated(model: Model, images: readonly Float32Array[], levels: number): Promise<Evaluated> {
  try {
    const count = Math.min(levels, model.levels.length);
    images.forEach((image, slot) => {
      model.encode(slot, image);
    });
    const views = Array.from({ length: images.length * count }, (_, i) => ({
      slot: i % images.length,
      level: Math.floor((Math.floor(i / images.length) * model.levels.length) / count),
    }));
    const all = views.flatMap((view) => model.candidates.map((_, candidate) => ({ ...view, candidate })));
    const errors: number[] = [];
    for (let from = 0; from < all.length; from += model.batchSize) {
      const part = all.slice(from, from + model.batchSize);
      const of = (name: 'slot' | 'level' | 'candidate') => Uint32Array.from(part, (one) => one[name]);
      const level = of('level');
      errors.push(
        ...(await model.errors({ slot: of('slot'), candidate: of('candidate'), level, noise: level })),
      );
    }
    return { errors, weights: views.map(({ level }) => model.levels[level]!.weight) };
  } finally {
    model.close();
  }
}

/** Returns how much the errors of a model change in f16. */
export async function compareInBoth(
  open: (precision: 'f32' | 'f16') => Promise<Model>,
  images: (model: Model) => Promise<readonly Float32Array[]>,
  levels = 6,
): Promise<Comparison> {
  const run = async (precision: 'f32' | 'f16') => {
    const model = await open(precision);
    return evaluated(model, await images(model), levels);
  };
  const exact = await run('f32');
  const half = await run('f16');
  const changes = exact.errors.map((error, i) => (half.errors[i]! - error) / error);
  const rms = Math.sqrt(changes.reduce((sum, change) => sum + change ** 2, 0) / changes.length);
  return { ...agreementOf(exact.errors, half.errors, exact.weights), rms };
}
