// Classifiers whose best attack is known, and a fake model whose errors have gradients.

import type { Model } from '../../../src/graph/model.ts';
import type { Defended } from '../../../src/pipeline/attacking/defended.ts';
import { fakeCandidates, fakeLevels, hash } from '../fake-model.ts';

/** Returns the weight of pixel i for class c. */
export const weightAt = (c: number, i: number): number => 2 * hash(c, i, 77) - 1;

/** Returns the classifier z_c = w_c · x + b_c for images [1, side, side]; `draws` records its calls. */
export function linearClassifier(classes = 4, side = 6, noise = 0): Defended & { readonly draws: number[] } {
  const n = side * side;
  const draws: number[] = [];
  const weight = (c: number, i: number, draw: number) => weightAt(c, i) + noise * (hash(c, i, draw, 5) - 0.5);
  const logits = (x: Float64Array, draw: number) =>
    Float64Array.from({ length: classes }, (_, c) =>
      x.reduce((sum, v, i) => sum + weight(c, i, draw) * v, 0),
    );
  return {
    classes,
    shape: [1, side, side],
    period: 1,
    draws,
    async logits(x, draw) {
      draws.push(draw);
      return logits(x, draw);
    },
    async gradient(x, draw, cotangent) {
      draws.push(draw);
      const z = logits(x, draw);
      const by = cotangent(z);
      const gradient = Float64Array.from({ length: n }, (_, i) =>
        by.reduce((sum, b, c) => sum + b * weight(c, i, draw), 0),
      );
      return { logits: z, gradient };
    },
  };
}

/** Returns errors 0.5 + (w_c · x + curved (w_c · x)²) / n + a small term of (level, noise), and their gradients. */
export function smoothModel({
  classes = 4,
  side = 4,
  levels = 6,
  batchSize = 7,
  slots = 3,
  weights = [1, 2, 0.5, 0, 1.5, 1],
  temperature = 0.05,
  delay,
}: {
  readonly classes?: number;
  readonly side?: number;
  readonly levels?: number;
  readonly batchSize?: number;
  readonly slots?: number;
  readonly weights?: readonly number[];
  readonly temperature?: number;
  readonly delay?: () => Promise<unknown>;
} = {}): Model & { evaluations: number; gradientRows: number } {
  const n = side * side;
  const held: Float32Array[] = Array.from({ length: slots }, () => new Float32Array(n));
  const scale = (level: number, noise: number) => 1 + 0.3 * hash(level, noise, 3);
  const product = (x: Float32Array, c: number) => x.reduce((sum, v, i) => sum + weightAt(c, i) * v, 0) / n;
  const made: ReturnType<typeof smoothModel> = {
    name: 'smooth',
    inputShape: [1, side, side],
    candidates: fakeCandidates(classes),
    levels: fakeLevels(levels).map((level, i) => ({ ...level, weight: weights[i % weights.length]! })),
    batchSize,
    slots,
    temperature,
    evaluations: 0,
    gradientRows: 0,
    encode(slot, image) {
      held[slot] = image.slice();
    },
    async errors({ slot, candidate, level, noise }) {
      if (slot.length > batchSize) throw new Error('the batch is too large');
      this.evaluations += slot.length;
      const errors = Float32Array.from(slot, (s, k) => {
        const p = product(held[s]!, candidate[k]!);
        return 0.5 + scale(level[k]!, noise[k]!) * (p + p * p);
      });
      await (delay?.() ?? new Promise(setImmediate));
      return errors;
    },
    differentiable: {
      mixes: Array.from({ length: levels }, () => ({ a: 1, b: 0.5 })),
      gradientBatchSize: 5,
      async gradients({ slot, candidate, level, noise }) {
        const rows = slot.length;
        made.gradientRows += rows;
        const errors = new Float32Array(rows);
        const gradients = new Float32Array(rows * n);
        for (let k = 0; k < rows; k++) {
          const c = candidate[k]!;
          const p = product(held[slot[k]!]!, c);
          const s = scale(level[k]!, noise[k]!);
          errors[k] = 0.5 + s * (p + p * p);
          for (let i = 0; i < n; i++) gradients[k * n + i] = (s * (1 + 2 * p) * weightAt(c, i)) / n;
        }
        await new Promise(setImmediate);
        return { errors, gradients };
      },
      predict: async ({ xt }) => xt,
      pullBack: async ({ cotangent }) => cotangent,
    },
    close() {},
  };
  return made;
}
