// The steps of DiffPure (Nie et al., ICML 2022): an image is noised so far that small perturbations vanish in
// the noise, and then denoised by the reverse process. Everything is for pixels in [-1, 1].

import type { Mix } from '../../graph/model.ts';
import type { Denoising, PurificationStep } from './chain.ts';

/** A level of the model and what it does to an image. */
export interface DiffusionLevel {
  readonly level: number;
  readonly mix: Mix;
}

/** Makes a step that changes only x: gradients of the other arrays pass through. */
function stepOfX(
  forward: (denoising: Denoising, x: Float32Array) => Promise<Float32Array>,
  pullBack: (denoising: Denoising, x: Float32Array, v: Float32Array) => Promise<Float64Array>,
): PurificationStep {
  return {
    forward: async (denoising, { x, origin = x }) => ({ x: await forward(denoising, x), origin }),
    async pullBack(denoising, before, { x, origin }) {
      const back = await pullBack(
        denoising,
        before.x,
        Float32Array.from(x ?? new Float64Array(before.x.length)),
      );
      if (before.origin) return origin ? { x: back, origin } : { x: back };
      return { x: origin ? back.map((value, i) => value + origin[i]!) : back };
    },
  };
}

/** Returns the step x_t = a x + b eps. */
export const noisingStep = ({ a, b }: Mix, eps: () => Float32Array): PurificationStep =>
  stepOfX(
    async (_, x) => {
      const noise = eps();
      return x.map((value, i) => a * value + b * noise[i]!);
    },
    async (_, __, v) => Float64Array.from(v, (value) => a * value),
  );

/**
 * Returns a step of Euler-Maruyama down the reverse VP-SDE, dx = (-beta x / 2 - beta score) dt + sqrt(beta) dw with
 * score = -eps_hat / b: x = (1 + beta / 2) x - (beta / b) eps_hat(x) + sqrt(beta) z, where beta = 1 - (a / a')² is that
 * of the way to the next level (a' = 1 after the last): the discrete betas if every timestep is a step.
 */
export function reverseStep(
  { level, mix: { a, b } }: DiffusionLevel,
  next: Mix,
  z: () => Float32Array,
): PurificationStep {
  const beta = 1 - (a / next.a) ** 2;
  const [grow, remove, spread] = [1 + beta / 2, beta / b, Math.sqrt(beta)];
  return stepOfX(
    async (denoising, x) => {
      const noise = z();
      const predicted = await denoising.predict(x, level);
      return x.map((value, i) => grow * value - remove * predicted[i]! + spread * noise[i]!);
    },
    async (denoising, x, v) => {
      const pulled = await denoising.pullBack(x, level, v);
      return Float64Array.from(v, (value, i) => grow * value - remove * pulled[i]!);
    },
  );
}

/**
 * Returns a step of Heun's method down the probability flow ODE dx / dsigma = (x - D(x; sigma)) / sigma = eps_hat
 * (Karras et al. 2022, algorithm 1 without churn), from one sigma to the next; Euler's to sigma 0, after the last.
 */
export function heunStep(from: DiffusionLevel, to: DiffusionLevel | undefined): PurificationStep {
  const h = (to?.mix.b ?? 0) - from.mix.b;
  const plus = (x: Float32Array, y: Float32Array, by: number) => x.map((value, i) => value + by * y[i]!);
  return stepOfX(
    async (denoising, x) => {
      const first = await denoising.predict(x, from.level);
      const euler = plus(x, first, h);
      if (!to) return euler;
      const second = await denoising.predict(euler, to.level);
      return x.map((value, i) => value + (h / 2) * (first[i]! + second[i]!));
    },
    async (denoising, x, v) => {
      if (!to) return Float64Array.from(plus(v, await denoising.pullBack(x, from.level, v), h));
      const euler = plus(x, await denoising.predict(x, from.level), h);
      const second = await denoising.pullBack(euler, to.level, v);
      const inner = v.map((value, i) => (h / 2) * (value + h * second[i]!));
      const first = await denoising.pullBack(x, from.level, inner);
      return Float64Array.from(v, (value, i) => value + (h / 2) * second[i]! + first[i]!);
    },
  );
}
