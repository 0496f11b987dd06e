// The steps of likelihood maximisation (Chen et al., ICML 2024): they move an image so that the denoising loss
// mean((D(x + sigma n; sigma) - x)²), a bound on -log p(x), becomes smaller. Everything is for pixels in [-1, 1].

import type { Mix } from '../../graph/model.ts';
import { l2 } from '../norms.ts';
import { type Cotangent, type Denoising, hessianTimes, type PurificationStep, type State } from './chain.ts';
import { dot, l1, type MoveLimit, projectWithin, pullBackProjection } from './projection.ts';

/** How a step noises the image before it evaluates the loss: with noise `noise` at level `level`. */
export interface Noising {
  readonly level: number;
  readonly noise: number;
  readonly mix: Mix;
  /** The factor that converts the model's errors to squares in the image: (b / a)² if they compare noises, else 1. */
  readonly scale: number;
}

const BETA1 = 0.9;
const BETA2 = 0.999;
const STABLE = 1e-8;

const scaled = (values: Float32Array, scale: number) => Float64Array.from(values, (value) => scale * value);
const zeros = (length: number) => new Float64Array(length);
const f64 = (values: Float32Array | Float64Array | undefined, length: number): Float64Array =>
  values ? Float64Array.from(values) : zeros(length);
const sum = (...rows: readonly Float64Array[]) =>
  rows[0]!.map((_, i) => rows.reduce((s, row) => s + row[i]!, 0));

/** Gradients of the loss by state, so that the backward pass reuses those of the forward pass. */
type Known = WeakMap<State, Float64Array>;

/** The direction of rising loss at x, and the product of v with its transposed derivative. */
interface Slope {
  readonly at: (denoising: Denoising, x: Float32Array) => Promise<Float64Array>;
  readonly pullBack: (denoising: Denoising, x: Float32Array, v: Float64Array) => Promise<Float64Array>;
}

/** Returns the gradient of the loss, through the network and the target. */
const gradientOf = ({ level, noise, scale }: Noising): Slope => ({
  at: async (denoising, x) => scaled((await denoising.lossGradient(x, level, noise)).gradient, scale),
  pullBack: async (denoising, x, v) =>
    (await hessianTimes(denoising, x, level, noise, v)).map((value) => scale * value),
});

/**
 * Returns x - D(x_s) = (b / a) (eps_hat(x_t) - eps): the gradient of half the squared loss if D did not depend on x.
 */
const residualOf = ({ level, mix: { a, b } }: Noising, eps: () => Float32Array): Slope => {
  const noised = (x: Float32Array) => {
    const noise = eps();
    return x.map((value, i) => a * value + b * noise[i]!);
  };
  return {
    async at(denoising, x) {
      const noise = eps();
      const predicted = await denoising.predict(noised(x), level);
      return Float64Array.from(predicted, (value, i) => (b / a) * (value - noise[i]!));
    },
    pullBack: async (denoising, x, v) =>
      scaled(await denoising.pullBack(noised(x), level, Float32Array.from(v)), b),
  };
};

async function slopeAt(slope: Slope, denoising: Denoising, before: State, known: Known) {
  const found = known.get(before) ?? (await slope.at(denoising, before.x));
  known.set(before, found);
  return found;
}

/** Returns the first image of a chain, which the first step adds to the state. */
const originOf = (state: State): Float32Array => (state.origin as Float32Array | undefined) ?? state.x;

/** Returns the gradients of x and of the origin; before the first step they are the same image, so they are summed. */
function backTo(before: State, x: Float64Array, origin: Float64Array, rest: Cotangent = {}): Cotangent {
  return before.origin ? { ...rest, x, origin } : { ...rest, x: sum(x, origin) };
}

/**
 * Returns step k (from 1) of Adam (Kingma and Ba 2015; 0.9, 0.999, 1e-8) with learning rate `rate`, as
 * released (`likelihood_maximization_T1`): nothing is clipped on the way.
 */
export function adamStep(noising: Noising, k: number, rate: number): PurificationStep {
  const slope = gradientOf(noising);
  const known: Known = new WeakMap();
  const moments = async (denoising: Denoising, before: State) => {
    const g = await slopeAt(slope, denoising, before, known);
    const m = f64(before.m, g.length).map((value, i) => BETA1 * value + (1 - BETA1) * g[i]!);
    const v = f64(before.v, g.length).map((value, i) => BETA2 * value + (1 - BETA2) * g[i]! ** 2);
    return { g, m, v };
  };
  const [bias1, bias2] = [1 - BETA1 ** k, 1 - BETA2 ** k];
  return {
    async forward(denoising, before) {
      const { m, v } = await moments(denoising, before);
      const x = before.x.map(
        (value, i) => value - (rate * (m[i]! / bias1)) / (Math.sqrt(v[i]! / bias2) + STABLE),
      );
      return { x, origin: originOf(before), m, v };
    },
    async pullBack(denoising, before, after) {
      const n = before.x.length;
      const { g, m, v } = await moments(denoising, before);
      const x = f64(after.x as Float64Array, n);
      const root = v.map((value) => Math.sqrt(value / bias2));
      const ofM = f64(after.m, n).map((value, i) => value - (rate * x[i]!) / bias1 / (root[i]! + STABLE));
      const ofV = f64(after.v, n).map((value, i) =>
        root[i] === 0
          ? value
          : value + (rate * x[i]! * (m[i]! / bias1)) / (root[i]! + STABLE) ** 2 / (2 * root[i]! * bias2),
      );
      const ofG = g.map((value, i) => (1 - BETA1) * ofM[i]! + 2 * (1 - BETA2) * value * ofV[i]!);
      const throughLoss = await slope.pullBack(denoising, before.x, ofG);
      const moment = before.m
        ? { m: ofM.map((value) => BETA1 * value), v: ofV.map((value) => BETA2 * value) }
        : {};
      return backTo(before, sum(x, throughLoss), f64(after.origin, n), moment);
    },
  };
}

/**
 * Returns a step of algorithm 1: m = m - g / ||g||_1, and x goes by `size` along m: by its signs (linf), or
 * by m / ||m||_2 (l2); then back into the ball and into [-1, 1]. Momentum 1.
 */
export function momentumStep(
  noising: Noising,
  size: number,
  limit: MoveLimit,
  eps?: () => Float32Array,
): PurificationStep {
  const slope = eps ? residualOf(noising, eps) : gradientOf(noising);
  const known: Known = new WeakMap();
  const towards = async (denoising: Denoising, before: State) => {
    const g = await slopeAt(slope, denoising, before, known);
    const length = l1(g) || 1;
    const m = f64(before.m, g.length).map((value, i) => value - g[i]! / length);
    const norm = l2(m) || 1;
    const step = limit.norm === 'linf' ? m.map(Math.sign) : m.map((value) => value / norm);
    const moved = Float64Array.from(before.x, (value, i) => value + size * step[i]!);
    return { g, length, m, norm, moved };
  };
  return {
    async forward(denoising, before) {
      const { m, moved } = await towards(denoising, before);
      const origin = originOf(before);
      return { x: Float32Array.from(projectWithin(moved, origin, limit)), origin, m };
    },
    async pullBack(denoising, before, after) {
      const n = before.x.length;
      const { g, length, m, norm, moved } = await towards(denoising, before);
      const projected = pullBackProjection(moved, originOf(before), limit, f64(after.x as Float64Array, n));
      const origin = sum(projected.origin, f64(after.origin, n));
      let ofM = f64(after.m, n);
      if (limit.norm === 'l2') {
        const along = dot(projected.x, m) / norm ** 2;
        ofM = ofM.map((value, i) => value + (size / norm) * (projected.x[i]! - along * m[i]!));
      }
      let { x } = projected;
      if (l2(ofM) > 0) {
        const along = dot(g, ofM) / length;
        const ofG = g.map((value, i) => -(ofM[i]! - Math.sign(value) * along) / length);
        x = sum(x, await slope.pullBack(denoising, before.x, ofG));
      }
      return backTo(before, x, origin, before.m ? { m: ofM } : {});
    },
  };
}

/**
 * Returns the last step of a chain, which clips to the ball around the first image, if there is a limit, and
 * to [-1, 1].
 */
export const clipStep = (limit: MoveLimit | undefined): PurificationStep => ({
  async forward(_, before) {
    const x = projectWithin(Float64Array.from(before.x), originOf(before), limit);
    return { x: Float32Array.from(x), origin: originOf(before) };
  },
  async pullBack(_, before, after) {
    const n = before.x.length;
    const x = Float64Array.from(before.x);
    const projected = pullBackProjection(x, originOf(before), limit, f64(after.x as Float64Array, n));
    return backTo(before, projected.x, sum(projected.origin, f64(after.origin, n)));
  },
});
