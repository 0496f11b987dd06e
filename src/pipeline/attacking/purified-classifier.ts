// A classifier of purified images, to be attacked. The mode of the gradient says what the attacker knows
// about the purification.

import { type Denoising, type PurificationStep, pullBackThrough, statesOf } from '../purifying/chain.ts';
import type { Defended } from './defended.ts';

/**
 * How an attack sees a purification: `identity` purifies in the forward pass and treats its derivative as 1
 * (BPDA, Athalye et al., ICML 2018); `full` backpropagates through every step; `transfer` attacks the
 * classifier alone, and the result is judged with the purification.
 */
export const GRADIENT_MODES = ['identity', 'full', 'transfer'] as const;

/** One of `GRADIENT_MODES`. */
export type GradientMode = (typeof GRADIENT_MODES)[number];

/** A purification: the steps of each draw, and the network that they use. */
export interface Purifier {
  readonly denoising: Denoising;
  readonly stepsOf: (draw: number) => readonly PurificationStep[];
}

/** Returns the classifier of purified images, with gradients by `identity` or `full`. */
export function purified<D extends Defended>(
  classifier: D,
  { denoising, stepsOf }: Purifier,
  mode: Exclude<GradientMode, 'transfer'>,
): D {
  const { period } = classifier;
  const run = async (x: Float64Array, draw: number) => {
    const steps = stepsOf(Math.floor(draw / period));
    const states = await statesOf(
      denoising,
      steps,
      Float32Array.from(x, (v) => 2 * v - 1),
    );
    return { steps, states, clean: Float64Array.from(states.at(-1)!.x, (v) => (v + 1) / 2) };
  };
  return {
    ...classifier,
    logits: async (x, draw) => classifier.logits((await run(x, draw)).clean, draw),
    ...(classifier.gradient && {
      gradient: async (x: Float64Array, draw: number, cotangent: (logits: Float64Array) => Float64Array) => {
        const { steps, states, clean } = await run(x, draw);
        const { logits, gradient } = await classifier.gradient!(clean, draw, cotangent);
        if (mode === 'identity') return { logits, gradient };
        // Purification is for pixels in [-1, 1], attacks are for [0, 1]: the factors 1/2 and 2 of both ends cancel.
        return { logits, gradient: await pullBackThrough(denoising, steps, states, gradient) };
      },
    }),
  };
}
