// A fake model without a device: a function gives the errors, batches take one or more turns of the event loop, and tests
// can make the device be lost. It records its batches and images for the tests.

import type { Candidate, EvaluationBatch, Level, Model } from '../../src/graph/model.ts';
import { playTrial } from '../../src/pipeline/deciding/rounds.ts';
import type { ModelInfo, Strategy, Trial } from '../../src/pipeline/deciding/trial.ts';
import type { ImageItem } from '../../src/pipeline/types.ts';

/** The number of fake images, whose pixels in (0, 1] are all different. */
const IDS = 2 ** 20;

/** Returns the error of an evaluation; `image` is the number of the image in the slot. */
export type ErrorOf = (image: number, candidate: number, level: number, noise: number) => number;

export interface FakeOptions {
  readonly candidates?: number | readonly Candidate[];
  readonly levels?: number | readonly Level[];
  readonly batchSize?: number;
  readonly slots?: number;
  readonly temperature?: number;
  readonly inputShape?: Model['inputShape'];
  readonly kappa?: number;
  readonly errorOf?: ErrorOf;
  /** Returns the number of an image from its first pixel; by default the inverse of `image` below. */
  readonly numberOf?: (pixel: number) => number;
  /** Runs before a batch is answered; may wait, or throw an error of the device. */
  readonly beforeBatch?: (batch: EvaluationBatch, index: number) => unknown;
  readonly beforeEncode?: (slot: number) => void;
}

export interface Fake extends Model {
  readonly batches: EvaluationBatch[];
  readonly encoded: number[];
  /** The number of batches in flight, and the largest number so far. */
  waiting: number;
  mostWaiting: number;
  closed: number;
}

/** Waits for turns of the event loop, which tests use instead of times. A batch of a fake model takes one or more. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}

/** Returns a deterministic number in [0, 1) from a few integers. */
export function hash(...keys: readonly number[]): number {
  let h = 2166136261;
  for (const key of keys) {
    h = Math.imul(h ^ (key + 0x9e3779b9), 16777619);
    h = Math.imul(h ^ (h >>> 15), 2246822507);
    h ^= h >>> 13;
  }
  return (h >>> 0) / 2 ** 32;
}

/** Returns a deterministic normal number from a few integers. */
export const gauss = (...keys: readonly number[]): number =>
  Math.sqrt(-2 * Math.log(1 - hash(...keys, 1))) * Math.cos(2 * Math.PI * hash(...keys, 2));

/** Returns errors in which candidate `image % candidates` is best by `gap`, with common and separate noise. */
export const noisyErrors =
  (candidates: number, gap = 0.05, noise = 0.05): ErrorOf =>
  (image, candidate, level, index) =>
    0.5 +
    0.3 * hash(image, level) +
    (candidate === image % candidates ? 0 : gap) +
    noise * gauss(image, candidate, level, index);

export const fakeCandidates = (count: number): Candidate[] =>
  Array.from({ length: count }, (_, c) => ({ label: `class ${c}`, classidx: c }));

export const fakeLevels = (count: number): Level[] =>
  Array.from({ length: count }, (_, l) => ({ t: 10 * l + 5, weight: 1 }));

export function fakeModel({
  candidates = 10,
  levels = 24,
  batchSize = 16,
  slots = 8,
  temperature = 0.01,
  inputShape = [1, 2, 2],
  kappa,
  numberOf = (pixel) => Math.round(pixel * IDS) - 1,
  errorOf = noisyErrors(typeof candidates === 'number' ? candidates : candidates.length),
  beforeBatch = () => {},
  beforeEncode = () => {},
}: FakeOptions = {}): Fake {
  const held = new Float32Array(slots).fill(Number.NaN);
  return {
    name: 'fake',
    inputShape,
    candidates: typeof candidates === 'number' ? fakeCandidates(candidates) : candidates,
    levels: typeof levels === 'number' ? fakeLevels(levels) : levels,
    batchSize,
    slots,
    temperature,
    kappa,
    batches: [],
    encoded: [],
    waiting: 0,
    mostWaiting: 0,
    closed: 0,
    encode(slot, image) {
      beforeEncode(slot);
      const id = numberOf(image[0]!);
      this.encoded.push(id);
      held[slot] = id;
    },
    async errors(batch) {
      if (batch.slot.length > batchSize)
        throw new Error(`batch of ${batch.slot.length}, at most ${batchSize}`);
      const index = this.batches.push(batch) - 1;
      this.mostWaiting = Math.max(this.mostWaiting, ++this.waiting);
      const errors = Float32Array.from(batch.slot, (slot, i) =>
        errorOf(held[slot]!, batch.candidate[i]!, batch.level[i]!, batch.noise[i]!),
      );
      try {
        await new Promise(setImmediate);
        await beforeBatch(batch, index);
      } finally {
        this.waiting--;
      }
      return errors;
    },
    close() {
      this.closed++;
    },
  };
}

/** Runs the trial of one image to its end, without a stream. */
export const runTrial = (
  strategy: Strategy,
  info: ModelInfo,
  errorOf: (candidate: number, level: number, noise: number) => number,
  budget?: number,
): Trial => playTrial(info, strategy(info), errorOf, budget);

/** Returns image `id`, whose pixels are all `(id + 1) / IDS`. */
export const image = (id: number): ImageItem => ({
  path: `image ${id}`,
  pixels: new Float32Array(4).fill((id + 1) / IDS),
});

/** Yields images `from` to `to` - 1, created when they are pulled; `pulled` counts them. */
export async function* images(from: number, to: number, pulled = { count: 0 }): AsyncGenerator<ImageItem> {
  for (let id = from; id < to; id++) {
    pulled.count++;
    yield image(id);
  }
}

/** Returns all values of a stream. */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of source) values.push(value);
  return values;
}
