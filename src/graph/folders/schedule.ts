// Reads the noise schedule of a discrete model from diffusers' scheduler_config.json: only what training fixed, which is
// the betas and what the network predicts. A classifier does not depend on how a sampler steps, so the files of PNDM,
// Euler and other samplers, which Stable Diffusion folders hold, are accepted as well.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { className } from '../files/class-name.ts';
import { checked, jsonReader, quote } from '../files/json.ts';

/** What the network's output means: the noise eps, v = a eps - b x0, or the image x0. */
export type PredictionType = 'epsilon' | 'v_prediction' | 'sample';

/** The noise levels t = 0 .. numTrainTimesteps - 1 that a network was trained on. */
export interface Schedule {
  readonly numTrainTimesteps: number;
  /**
   * alphaBar(t) = prod (1 - beta), float32 values: bit for bit those of diffusers' `alphas_cumprod` for linear,
   * scaled_linear, squaredcos_cap_v2, laplace, exp and trained betas; within 3 ulp for sigmoid, and within
   * 6e-7 relative for alphaBar > 0.01 under rescale_betas_zero_snr, because torch's own sqrt and sigmoid are not
   * correctly rounded.
   */
  readonly alphasCumprod: Float64Array;
  readonly predictionType: PredictionType;
  /** The sampler's `variance_type`, such as learned_range; undefined if the file has none. */
  readonly varianceType?: string;
}

/** x_t = a x0 + b eps, and the network's eps_hat = alpha output + beta x_t. */
export interface Coefficients {
  readonly a: number;
  readonly b: number;
  readonly alpha: number;
  readonly beta: number;
}

type BetaSchedule = 'linear' | 'scaled_linear' | 'squaredcos_cap_v2' | 'sigmoid' | 'laplace' | 'exp';

interface SchedulerClass {
  readonly betaStart: number;
  readonly betaEnd: number;
  /** The first one is the default. */
  readonly schedules: readonly BetaSchedule[];
  /** What alphaBar of the last timestep becomes under `rescale_betas_zero_snr`; undefined if the class has no such key. */
  readonly zeroSnr?: number;
}

const common: readonly BetaSchedule[] = ['linear', 'scaled_linear', 'squaredcos_cap_v2'];
const plain: SchedulerClass = { betaStart: 0.0001, betaEnd: 0.02, schedules: common };
const karras: SchedulerClass = { betaStart: 0.00085, betaEnd: 0.012, schedules: common };
const consistency: SchedulerClass = {
  ...karras,
  schedules: ['scaled_linear', 'linear', 'squaredcos_cap_v2'],
  zeroSnr: 0,
};
/** Samplers that divide by alphaBar keep it at the smallest f16 instead of 0. */
const almostZero = 2 ** -24;

const classes: ReadonlyMap<string, SchedulerClass> = new Map([
  ['DDPMScheduler', { ...plain, schedules: [...common, 'sigmoid', 'laplace'], zeroSnr: 0 }],
  ['DDPMParallelScheduler', { ...plain, schedules: [...common, 'sigmoid', 'laplace'], zeroSnr: 0 }],
  ['DDIMScheduler', { ...plain, zeroSnr: 0 }],
  ['DDIMParallelScheduler', { ...plain, zeroSnr: 0 }],
  ['DDIMInverseScheduler', { ...plain, zeroSnr: 0 }],
  ['PNDMScheduler', plain],
  ['LMSDiscreteScheduler', plain],
  ['EulerDiscreteScheduler', { ...plain, zeroSnr: almostZero }],
  ['EulerAncestralDiscreteScheduler', { ...plain, zeroSnr: almostZero }],
  ['HeunDiscreteScheduler', { ...karras, schedules: [...common, 'exp'] }],
  ['KDPM2DiscreteScheduler', karras],
  ['KDPM2AncestralDiscreteScheduler', karras],
  ['DPMSolverSDEScheduler', karras],
  ['DPMSolverMultistepScheduler', { ...plain, zeroSnr: almostZero }],
  ['DPMSolverMultistepInverseScheduler', plain],
  ['DPMSolverSinglestepScheduler', plain],
  ['SASolverScheduler', plain],
  ['LCMScheduler', consistency],
  ['TCDScheduler', consistency],
  ['DEISMultistepScheduler', plain],
  ['UniPCMultistepScheduler', { ...plain, zeroSnr: almostZero }],
]);

const beta = z.number().min(0).max(1);
const fields = z.object({
  _class_name: className,
  num_train_timesteps: z.int().min(1).max(100_000).default(1000),
  beta_start: beta.optional(),
  beta_end: beta.optional(),
  beta_schedule: z.string().optional(),
  trained_betas: z.array(beta).nullish(),
  prediction_type: z.string().default('epsilon'),
  variance_type: z.string().nullish(),
  rescale_betas_zero_snr: z.boolean().nullish(),
  use_flow_sigmas: z.boolean().nullish(),
  timestep_type: z.string().nullish(),
});

/** Reads a `scheduler_config.json`. @throws ModelError naming the file and the value that is not understood. */
export const readSchedule = jsonReader(parseSchedule);

/** Returns the schedule of a parsed `scheduler_config.json`; `file` is for messages. */
export function parseSchedule(config: unknown, file: string): Schedule {
  const got = checked(fields, config, file);
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  const known = classes.get(got._class_name);
  if (!known)
    throw refuse(
      `expected one of the schedulers ${[...classes.keys()].join(', ')}, got ${quote(got._class_name)}`,
    );
  const predictionType = got.prediction_type;
  if (predictionType !== 'epsilon' && predictionType !== 'v_prediction' && predictionType !== 'sample')
    throw refuse(`expected prediction_type epsilon, v_prediction or sample, got ${quote(predictionType)}`);
  if (got.use_flow_sigmas) throw refuse('use_flow_sigmas is not supported: a flow has no betas');
  if (got.timestep_type != null && got.timestep_type !== 'discrete')
    throw refuse(`expected timestep_type discrete, got ${quote(got.timestep_type)}`);

  const steps = got.num_train_timesteps;
  let betas: Float32Array;
  if (got.trained_betas != null) {
    if (got.trained_betas.length !== steps)
      throw refuse(`expected ${steps} trained_betas as num_train_timesteps, got ${got.trained_betas.length}`);
    betas = Float32Array.from(got.trained_betas);
  } else {
    const given = got.beta_schedule ?? known.schedules[0];
    const name = known.schedules.find((schedule) => schedule === given);
    if (!name)
      throw refuse(
        `expected beta_schedule ${known.schedules.join(', ')} of ${got._class_name}, got ${quote(given)}`,
      );
    betas = makeBetas(name, got.beta_start ?? known.betaStart, got.beta_end ?? known.betaEnd, steps);
  }
  const rescale = got.rescale_betas_zero_snr === true;
  if (rescale && known.zeroSnr === undefined)
    throw refuse(`rescale_betas_zero_snr is unknown to ${got._class_name}`);
  if (rescale) betas = rescaleZeroTerminalSnr(betas);
  const alphasCumprod = Float64Array.from(cumprod(betas));
  if (rescale) alphasCumprod[steps - 1] = known.zeroSnr!;

  if (!alphasCumprod.every((value) => value >= 0 && value <= 1))
    throw refuse('the betas give no noise schedule');
  if (predictionType === 'sample' && alphasCumprod[0] === 1)
    throw refuse('prediction_type sample needs noise at timestep 0, but its beta is 0');
  const varianceType = got.variance_type ?? undefined;
  return {
    numTrainTimesteps: steps,
    alphasCumprod,
    predictionType,
    ...(varianceType !== undefined && { varianceType }),
  };
}

/**
 * Returns the mixing coefficients of timestep `t`: x_t = a x0 + b eps with a = sqrt(alphaBar), b = sqrt(1 - alphaBar),
 * and eps_hat = alpha output + beta x_t, which turns every parametrisation into a prediction of the noise:
 * epsilon 1, 0; v (Salimans and Ho 2022, v = a eps - b x0) a, b; sample (x0) -a/b, 1/b.
 */
export function coefficients(schedule: Schedule, t: number): Coefficients {
  const alphaBar = schedule.alphasCumprod[t];
  if (alphaBar === undefined)
    throw new RangeError(
      `expected a timestep from 0 to ${schedule.numTrainTimesteps - 1} of the model, got ${t}`,
    );
  const a = Math.sqrt(alphaBar);
  const b = Math.sqrt(1 - alphaBar);
  switch (schedule.predictionType) {
    case 'epsilon':
      return { a, b, alpha: 1, beta: 0 };
    case 'v_prediction':
      return { a, b, alpha: a, beta: b };
    case 'sample':
      return { a, b, alpha: -a / b, beta: 1 / b };
    default:
      return schedule.predictionType satisfies never;
  }
}

function makeBetas(name: BetaSchedule, start: number, end: number, steps: number): Float32Array {
  switch (name) {
    case 'linear':
      return torchLinspace(start, end, steps);
    case 'scaled_linear':
      return torchLinspace(Math.sqrt(start), Math.sqrt(end), steps).map((root) => root * root);
    case 'sigmoid': {
      const range = Math.fround(end - start);
      const low = Math.fround(start);
      return torchLinspace(-6, 6, steps).map(
        (x) => Math.fround(Math.fround(1 / (1 + Math.exp(-x))) * range) + low,
      );
    }
    case 'squaredcos_cap_v2':
      return fromAlphaBar((t) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2, steps);
    case 'laplace':
      return fromAlphaBar((t) => {
        const side = t > 0.5 ? -1 : 1;
        const snr = Math.exp(-0.5 * side * Math.log(1 - 2 * Math.abs(0.5 - t) + 1e-6));
        return Math.sqrt(snr / (1 + snr));
      }, steps);
    case 'exp':
      return fromAlphaBar((t) => Math.exp(-12 * t), steps);
    default:
      return name satisfies never;
  }
}

/** Returns betas whose running product follows a continuous alphaBar(t), t in [0, 1]; none is above 0.999. */
function fromAlphaBar(alphaBar: (t: number) => number, steps: number): Float32Array {
  return Float32Array.from({ length: steps }, (_, i) =>
    Math.min(1 - alphaBar((i + 1) / steps) / alphaBar(i / steps), 0.999),
  );
}

/** Does what torch.linspace does in float32, bit for bit: counts from the nearer end and rounds each value once. */
function torchLinspace(start: number, end: number, steps: number): Float32Array {
  const first = Math.fround(start);
  const last = Math.fround(end);
  const step = steps > 1 ? Math.fround(Math.fround(last - first) / (steps - 1)) : 0;
  const half = Math.floor(steps / 2);
  return Float32Array.from({ length: steps }, (_, i) =>
    i < half || steps === 1 ? first + step * i : last - step * (steps - 1 - i),
  );
}

/** Does what torch.cumprod does to float32 alphas: multiplies in f64 and rounds to float32 at every element. */
function cumprod(betas: Float32Array): Float32Array {
  let product = 1;
  return betas.map((value) => {
    product *= Math.fround(1 - value);
    return product;
  });
}

/** Shifts and scales sqrt(alphaBar) so that the last timestep is pure noise (Lin et al. 2023, algorithm 1), in float32. */
function rescaleZeroTerminalSnr(betas: Float32Array): Float32Array {
  const roots = cumprod(betas).map(Math.sqrt);
  const first = roots[0]!;
  const last = roots.at(-1)!;
  const scale = Math.fround(first / Math.fround(first - last));
  const alphaBar = roots.map((root) => Math.fround(Math.fround(root - last) * scale) ** 2);
  return alphaBar.map((value, i) => 1 - (i === 0 ? value : Math.fround(value / alphaBar[i - 1]!)));
}
