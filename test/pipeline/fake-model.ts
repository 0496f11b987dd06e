// A model without a device: errors are looked up in a function, batches take a turn of the event loop or more,
// and devices can be lost on command. What it was asked is kept for tests to look at.

import type { Candidate, EvaluationBatch, Level, Model } from '../../src/graph/model.ts';
import { playTrial } from '../../src/pipeline/deciding/rounds.ts';
import type { ModelInfo, Strategy, Trial } from '../../src/pipeline/deciding/trial.ts';
import type { ImageItem } from '../../src/pipeline/types.ts';

/** Images that the pixels of a fake image, in (0, 1], can tell apart. */
const IDS = 2 ** 20;

/** The error of an evaluation; `image` is the number of the image in the slot. */
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
  /** The number of an image with this first pixel; that of `image` below by default. */
  readonly numberOf?: (pixel: number) => number;
  /** Runs before a batch answers; may wait, or throw what the device would. */
  readonly beforeBatch?: (batch: EvaluationBatch, index: number) => unknown;
  readonly beforeEncode?: (slot: number) => void;
}

export interface Fake extends Model {
  readonly batches: EvaluationBatch[];
  readonly encoded: number[];
  /** Batches asked for and not answered, and the most there ever were. */
  waiting: number;
  mostWaiting: number;
  closed: number;
}

/** Waits for turns of the event loop: tests count what happens, and know no clock. A batch of a fake takes one or more. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}

/** A deterministic number in [0, 1) from a few integers. */
export function hash(...keys: readonly number[]): number {
  let h = 2166136261;
  for (const key of keys) {
    h = Math.imul(h ^ (key + 0x9e3779b9), 16777619);
    h = Math.imul(h ^ (h >>> 15), 2246822507);
    h ^= h >>> 13;
  }
  return (h >>> 0) / 2 ** 32;
}

/** A normal number from a few integers. */
export const gauss = (...keys: readonly number[]): number =>
  Math.sqrt(-2 * Math.log(1 - hash(...keys, 1))) * Math.cos(2 * Math.PI * hash(...keys, 2));

/** Errors in which candidate `image % candidates` is best by `gap`, with common and own noise. */
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

/** Image `id`, whose pixels are all `(id + 1) / IDS`. */
export const image = (id: number): ImageItem => ({
  path: `image ${id}`,
  pixels: new Float32Array(4).fill((id + 1) / IDS),
});

/** Images `from` to `to` - 1, made when pulled; `pulled` counts them. */
export async function* images(from: number, to: number, pulled = { count: 0 }): AsyncGenerator<ImageItem> {
  for (let id = from; id < to; id++) {
    pulled.count++;
    yield image(id);
  }
}

/** All values of a stream. */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of source) values.push(value);
  return values;
}
