// Purification as a chain of steps, each a map of states with its derivative, so that whoever wants the gradient of
// what comes out with regard to the image that went in can walk back through it.

/** What a purification asks of its network, for one image at a time; who answers may gather batches of many. */
export interface Denoising {
  /** The error of x [c, h, w] in [-1, 1] at (level, noise) under no class, and its gradient with regard to x. */
  lossGradient(x: Float32Array, level: number, noise: number): Promise<LossGradient>;
  /** The noise eps_hat predicted at x_t under no class. */
  predict(xt: Float32Array, level: number): Promise<Float32Array>;
  /** Jᵀ·v, where J is the Jacobian of `predict` at x_t. */
  pullBack(xt: Float32Array, level: number, v: Float32Array): Promise<Float32Array>;
}

export interface LossGradient {
  readonly error: number;
  readonly gradient: Float32Array;
}

/** What goes from step to step, by name: the image `x` [c, h, w], and what else a method carries on (momentum). */
export type State = { readonly x: Float32Array } & Readonly<Record<string, Float32Array | Float64Array>>;

/** Gradients with regard to the arrays of a state, by their names; those that are absent are zero. */
export type Cotangent = Readonly<Record<string, Float64Array>>;

/** One step. All it needs to know (its level, its noise) it knows already, so it is a function of its state alone. */
export interface PurificationStep {
  forward(denoising: Denoising, before: State): Promise<State>;
  /**
   * The gradient with regard to `before`, from that with regard to the state after it. Where a step clips, what was
   * clipped has no gradient.
   */
  pullBack(denoising: Denoising, before: State, after: Cotangent): Promise<Cotangent>;
}

/** The states of a chain: the one it begins with, { x }, and one behind every step. The last one's x is the answer. */
export async function statesOf(
  denoising: Denoising,
  steps: readonly PurificationStep[],
  x: Float32Array,
): Promise<State[]> {
  const states: State[] = [{ x }];
  for (const step of steps) states.push(await step.forward(denoising, states.at(-1)!));
  return states;
}

/** The gradient with regard to the x that a chain began with, from that with regard to its answer. */
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

/** Length of the difference that `hessianTimes` takes, as a share of the root mean square of an image in [-1, 1]. */
const DIFFERENCE = 0.01;

/**
 * H·v of the loss at x by central differences of its gradient, H being symmetric: (g(x + h v) - g(x - h v)) / 2h,
 * with h so that h v has a root mean square of `DIFFERENCE`: small against the noise, large against f32's rounding.
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
