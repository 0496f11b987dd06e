// Connects purifications with a model: unconditional gradients of the error, predictions, and products with the Jacobian,
// for many images at once.

import { UnsupportedError } from '../../errors.ts';
import { NO_CLASS } from '../../graph/model.ts';
import type { AbortSignalLike } from '../../host-types.ts';
import type { Denoising } from '../purifying/chain.ts';
import { type Batcher, DEPTH } from './batcher.ts';
import { batchSizeOf, derivativesOf } from './jobs.ts';

/** Returns how many images keep two batches full if each has one request at a time. */
export const imagesInFlight = ({ model }: Batcher): number =>
  DEPTH * Math.max(1, Math.min(batchSizeOf(model, 'gradients'), model.slots));

/**
 * Returns the functions by which purifications use an unconditional model. They reject with the reason of `signal` after it
 * aborted, and with `ItemError` if the model returns NaN or infinity.
 *
 * @throws UnsupportedError for a model without gradients (of latents), or without a candidate for no class.
 */
export function denoisingBy(batcher: Batcher, signal?: AbortSignalLike): Denoising {
  const { model } = batcher;
  derivativesOf(model);
  const candidate = model.candidates.findIndex(({ classidx }) => classidx === NO_CLASS);
  if (candidate < 0)
    throw new UnsupportedError(
      `${model.name}: purification needs a model opened for no class (unconditional: true)`,
    );
  const user = batcher.user();
  const predict = async (
    kind: 'predict' | 'pullBack',
    rows: { readonly xt: Float32Array; readonly level: number; readonly cotangent?: Float32Array },
  ): Promise<Float32Array> => {
    signal?.throwIfAborted();
    let answer = rows.xt;
    await batcher.predict(user, kind, { ...rows, candidate }, (_, __, gradient) => {
      answer = gradient.slice();
    });
    return answer;
  };
  return {
    async lossGradient(x, level, noise) {
      const lease = await batcher.lease(user, x, { signal });
      try {
        let answer = { error: 0, gradient: x };
        const rows = { candidate: [candidate], level: [level], noise: [noise] };
        await lease.gradients(rows, (_, error, gradient) => {
          answer = { error, gradient: gradient.slice() };
        });
        return answer;
      } finally {
        lease.release();
      }
    },
    predict: (xt, level) => predict('predict', { xt, level }),
    pullBack: (xt, level, cotangent) => predict('pullBack', { xt, level, cotangent }),
  };
}
