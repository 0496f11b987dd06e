// Purification as a chain of steps. Each step maps a state to the next and has its derivative, so that the
// gradient of the purified image with respect to the original one can be backpropagated through the chain.

/** The network of a purification, for one image at a time. An implementation may gather calls in batches. */
export interface Denoising {
  /** Returns the error of x [c, h, w] in [-1, 1] at (level, noise) under no class, and its gradient by x. */
  lossGradient(x: Float32Array, level: number, noise: number): Promise<LossGradient>;
  /** Returns the noise eps_hat that is predicted at x_t under no class. */
  predict(xt: Float32Array, level: number): Promise<Float32Array>;
  /** Returns Jᵀ·v, where J is the Jacobian of `predict` at x_t. */
  pullBack(xt: Float32Array, level: number, v: Float32Array): Promise<Float32Array>;
}

export interface LossGradient {
  readonly error: number;
  readonly gradient: Float32Array;
}

/** The arrays that go from step to step, by name: the image `x` [c, h, w], and others of a method, such as momentum. */
export type State = { readonly x: Float32Array } & Readonly<Record<string, Float32Array | Float64Array>>;

/** Gradients with respect to the arrays of a state, by their names; absent ones are zero. */
export type Cotangent = Readonly<Record<string, Float64Array>>;

/** One step. It holds its own level and noise, so it is a function of the state alone. */
export interface PurificationStep {
  forward(denoising: Denoising, before: State): Promise<State>;
  /**
   * Returns the gradient with respect to `before` from the gradient with respect to the state after the step.
   * Values that a step clips have no gradient.
   */
  pullBack(denoising: Denoising, before: State, after: Cotangent): Promise<Cotangent>;
}

/** Returns the states of a chain: the first one, { x }, and one after every step. The last x is the purified image. */
export async function statesOf(
  denoising: Denoising,
  steps: readonly PurificationStep[],
  x: Float32Array,
): Promise<State[]> {
  const states: State[] = [{ x }];
  for (const step of steps) states.push(await step.forward(denoising, states.at(-1)!));
  return states;
}

/** Returns the gradient with respect to the first x of a chain from the gradient with respect to the last one. */
export async function pullBackThrough(
  denoising: Denoising,
  steps: readonly PurificationStep[],
  states: readonly State[],
  gradient: Float64Array,
): Promise<Float64Array> {
  let cotangent: Cotangent = { x: gradient };
  for (let i = steps.length - 1; i >= 0; i--)
    cotangent = await steps[i]!.pullBack(denoising, states[i]!, cotangent);
  return cotangent.x ?? new Float64Array(gradient.length);
}

/** Root mean square of the difference that `hessianTimes` takes, for images in [-1, 1]. */
const DIFFERENCE = 0.01;

/**
 * Returns H·v of the loss at x by central differences of its gradient, H being symmetric: (g(x + h v) - g(x - h v)) /
 * 2h, with h so that h v has a root mean square of `DIFFERENCE`: small against the noise, large against f32's rounding.
 */
export async function hessianTimes(
  denoising: Denoising,
  x: Float32Array,
  level: number,
  noise: number,
  v: Float64Array,
): Promise<Float64Array> {
  const rms = Math.sqrt(v.reduce((sum, value) => sum + value * value, 0) / v.length);
  if (rms === 0) return new Float64Array(v.length);
  const h = DIFFERENCE / rms;
  const at = (side: number) =>
    denoising.lossGradient(
      x.map((value, i) => value + side * h * v[i]!),
      level,
      noise,
    );
  const [above, below] = await Promise.all([at(1), at(-1)]);
  return v.map((_, i) => (above.gradient[i]! - below.gradient[i]!) / (2 * h));
}
