// A fake model of images whose pixels are independent Gaussians: the best denoiser and its gradients are known in closed
// form. Batches take a turn of the event loop, and tests can make its device be lost.

import { type Level, type Mix, type Model, NO_CLASS } from '../../src/graph/model.ts';
import { normals } from '../../src/kernels/diffusion/philox.ts';

export interface GaussianOptions {
  readonly levels: readonly Level[];
  readonly mixes: readonly Mix[];
  readonly inputShape?: Model['inputShape'];
  readonly seed?: number;
  /** Noises, one after the other, instead of those from the seed. */
  readonly noise?: Float32Array;
  readonly gradientBatchSize?: number;
  readonly slots?: number;
  /** Runs before a batch is answered; may wait, or throw an error of the device. */
  readonly beforeBatch?: (kind: string, rows: number) => unknown;
}

export interface Gaussian extends Model {
  closed: number;
  /** The number of rows of every batch, by the kind of request. */
  readonly batches: { readonly kind: string; readonly rows: number }[];
}

/** Returns levels of a model that adds noise of sigma to images. */
export const addedSigmas = (...sigmas: readonly number[]) => ({
  levels: sigmas.map((sigma) => ({ sigma, weight: 1 })),
  mixes: sigmas.map((sigma) => ({ a: 1, b: sigma })),
});

/** Returns alphaBar of DDPM's linear schedule at a timestep. */
export const ALPHA_BARS = Array.from({ length: 1000 }).reduce<number[]>((bars, _, t) => {
  bars.push((bars.at(-1) ?? 1) * (1 - (1e-4 + (t / 999) * (0.02 - 1e-4))));
  return bars;
}, []);

export const timestepSigmas = ALPHA_BARS.map((bar) => Math.sqrt((1 - bar) / bar));

/** Returns levels of a model with timesteps. */
export const timesteps = (...ts: readonly number[]) => ({
  levels: ts.map((t) => ({ t, weight: 1 })),
  mixes: ts.map((t) => ({ a: Math.sqrt(ALPHA_BARS[t]!), b: Math.sqrt(1 - ALPHA_BARS[t]!) })),
});

/** Returns the variance of a pixel. */
export const varianceOf = (i: number) => 0.2 + 0.1 * (i % 5);

/** Returns the factor of D = shrink · (x0 + sigma eps), for each pixel. */
export const shrink = (i: number, sigma: number) => varianceOf(i) / (varianceOf(i) + sigma * sigma);

export function gaussianModel({
  levels,
  mixes,
  inputShape = [1, 3, 4],
  seed = 0,
  noise,
  gradientBatchSize = 4,
  slots = 8,
  beforeBatch = () => undefined,
}: GaussianOptions): Gaussian {
  const length = inputShape.reduce((product, side) => product * side, 1);
  const held: (Float32Array | undefined)[] = new Array(slots);
  const image = mixes.every(({ a }) => a === 1);
  const eps = (index: number, i: number) =>
    noise ? noise[index * length + i]! : normals({ seed: BigInt(seed) }, index, i >> 2)[i & 3]!;
  const sigmaOf = (level: number) => mixes[level]!.b / mixes[level]!.a;
  const batches: Gaussian['batches'] = [];
  const answer = async <T>(kind: string, rows: number, make: () => T): Promise<T> => {
    if (rows > gradientBatchSize) throw new Error(`batch of ${rows}, at most ${gradientBatchSize}`);
    batches.push({ kind, rows });
    const made = make();
    await new Promise(setImmediate);
    await beforeBatch(kind, rows);
    return made;
  };
  return {
    name: 'gaussian',
    inputShape,
    candidates: [{ label: '', classidx: NO_CLASS }],
    levels,
    batchSize: gradientBatchSize,
    slots,
    temperature: 1,
    batches,
    closed: 0,
    encode(slot, pixels) {
      held[slot] = pixels.slice();
    },
    errors: () => Promise.reject(new Error('nobody asks for errors here')),
    differentiable: {
      mixes,
      gradientBatchSize,
      gradients: ({ slot, level, noise: index }) =>
        answer('gradients', slot.length, () => {
          const errors = new Float32Array(slot.length);
          const gradients = new Float32Array(slot.length * length);
          for (let row = 0; row < slot.length; row++) {
            const sigma = sigmaOf(level[row]!);
            const unit = image ? 1 : 1 / sigma ** 2;
            let sum = 0;
            for (let i = 0; i < length; i++) {
              const s = shrink(i, sigma);
              const away = (s - 1) * held[slot[row]!]![i]! + s * sigma * eps(index[row]!, i);
              sum += away * away;
              gradients[row * length + i] = (unit * 2 * away * (s - 1)) / length;
            }
            errors[row] = (unit * sum) / length;
          }
          return { errors, gradients };
        }),
      predict: ({ xt, level }) =>
        answer('predict', level.length, () =>
          xt.map((value, k) => {
            const at = level[Math.floor(k / length)]!;
            return ((1 - shrink(k % length, sigmaOf(at))) * value) / mixes[at]!.b;
          }),
        ),
      pullBack: ({ level, cotangent }) =>
        answer('pullBack', level.length, () =>
          cotangent.map((value, k) => {
            const at = level[Math.floor(k / length)]!;
            return ((1 - shrink(k % length, sigmaOf(at))) * value) / mixes[at]!.b;
          }),
        ),
    },
    close() {
      this.closed++;
    },
  };
}
