// Chooses a model's precision on a device: f16 if it is faster there and the model's own check passes.
//
// A device that computes in software keeps f32, without a measurement: results there do not change from version to
// version, and f16 gains little. Time of a full batch in f16, relative to f32, on lavapipe (2 cores; medians of 7, in
// turns), Mesa 25.0.7 and 26.2.6: fashion-mnist 0.87 and 1.31, fashion-mnist-multi-head 1.01 and 1.26, cifar-10 1.02 and
// 1.23.

import type { Capabilities } from '../../kernels/device/device.ts';
import { requireF16, type Stored } from '../../kernels/device/storage.ts';
import { agreementOf, agrees } from '../evaluation/agreement.ts';
import type { EvaluationBatch, Model } from '../model.ts';

/** `auto` chooses f16 if it was measured faster on the device and the model's own check passes. */
type PrecisionChoice = 'auto' | Stored;

/** Remembers, by device, what `auto` chose for a model. */
export interface PrecisionMemory {
  /** Returns the choice for the device with this description, or undefined. */
  read(device: string): Promise<Stored | undefined>;
  write(device: string, precision: Stored): Promise<void>;
}

/** Images, levels and candidates of the check. */
const IMAGES = 4;
const LEVELS = 4;
const CANDIDATES = 8;

/** Runs of a full batch that are timed; the fastest counts. */
const RUNS = 3;

/** f16 is chosen if a batch takes at most this share of its time in f32. */
const FASTER = 0.95;

/** Returns a time in milliseconds. */
type Clock = () => number;

/** Opens the model in a precision, for a trial. */
type OpenTrial = (precision: Stored) => Promise<Model>;

/**
 * Returns the precision in which to open a model on a device.
 * @param memory without one, `auto` is f32: a measurement at every opening would cost more than it gains.
 * @throws NoDeviceError if f16 is demanded of a device without `shader-f16`.
 */
export async function choosePrecision(
  choice: PrecisionChoice,
  capabilities: Capabilities,
  memory: PrecisionMemory | undefined,
  openTrial: OpenTrial,
  now: Clock = () => performance.now(),
): Promise<Stored> {
  if (choice === 'f16') requireF16(capabilities);
  if (choice !== 'auto') return choice;
  const { f16, software, description } = capabilities;
  if (!f16 || software || !memory) return 'f32';
  const known = await memory.read(description);
  if (known) return known;
  // If the trial takes the program with it, the next opening does not try again.
  await memory.write(description, 'f32');
  const precision = await tryBoth(openTrial, now);
  await memory.write(description, precision);
  return precision;
}

/** Tries a model in both precisions, one after the other, so that both together take no more memory than one. */
async function tryBoth(openTrial: OpenTrial, now: Clock): Promise<Stored> {
  const exact = await trial(await openTrial('f32'), now);
  // Opening in f16 fails, for example, if f16 cannot hold a weight.
  const half = await openTrial('f16').then(
    (model) => trial(model, now),
    () => undefined,
  );
  if (!half || !agrees(agreementOf(exact.errors, half.errors, exact.weights))) return 'f32';
  return half.milliseconds <= FASTER * exact.milliseconds ? 'f16' : 'f32';
}

/** The errors of the check's views [views][candidates], the weights of the views, and the time of a full batch. */
interface Trial {
  readonly errors: readonly number[];
  readonly weights: readonly number[];
  readonly milliseconds: number;
}

/** Returns an image of smooth random waves in [-1, 1], which has structure at all scales, like a photo. */
function waves([channels, height, width]: Model['inputShape'], seed: number): Float32Array {
  const image = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (let k = 1; k <= 16; k *= 2) {
          const phase = 2.4 * seed + 1.7 * c + k;
          sum += Math.sin((k * x) / width + phase) * Math.cos(((k + seed) * y) / height - phase) * 0.4;
        }
        image[(c * height + y) * width + x] = Math.max(-1, Math.min(1, sum));
      }
  return image;
}

/** Evaluates the check's views, times a full batch, and closes the model. */
async function trial(model: Model, now: Clock): Promise<Trial> {
  try {
    const images = Math.min(IMAGES, model.slots);
    for (let slot = 0; slot < images; slot++) model.encode(slot, waves(model.inputShape, slot));
    const levels = Math.min(LEVELS, model.levels.length);
    const candidates = Math.min(CANDIDATES, model.candidates.length);
    const views = Array.from({ length: images * levels }, (_, i) => ({
      slot: i % images,
      level: Math.floor(i / images),
    }));
    const evaluations = views.flatMap((view) =>
      Array.from({ length: candidates }, (_, candidate) => ({ ...view, candidate })),
    );
    const errors: number[] = [];
    for (let from = 0; from < evaluations.length; from += model.batchSize)
      errors.push(...(await model.errors(batchOf(evaluations.slice(from, from + model.batchSize)))));
    const full = batchOf(
      Array.from({ length: model.batchSize }, (_, i) => evaluations[i % evaluations.length]!),
    );
    await model.errors(full);
    let milliseconds = Number.POSITIVE_INFINITY;
    for (let run = 0; run < RUNS; run++) {
      const start = now();
      await model.errors(full);
      milliseconds = Math.min(milliseconds, now() - start);
    }
    return { errors, weights: views.map(({ level }) => model.levels[level]!.weight), milliseconds };
  } finally {
    model.close();
  }
}

function batchOf(
  evaluations: readonly { readonly slot: number; readonly candidate: number; readonly level: number }[],
): EvaluationBatch {
  const all = (name: 'slot' | 'candidate' | 'level') => Uint32Array.from(evaluations, (one) => one[name]);
  return { slot: all('slot'), candidate: all('candidate'), level: all('level'), noise: all('level') };
}
