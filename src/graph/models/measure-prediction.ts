// Measures whether the network of a text model predicts the noise or v, which checkpoints of Stable Diffusion 2.x do not say.
//
// An image is noised at two high levels, and the network predicts for the empty prompt. There the noise and
// v = a·eps - b·x0 are almost opposite things: v is mostly the negative image. A trained network's output is close to the
// one that it predicts. The image is always the same, so that results never depend on which image comes first.

import { ModelError } from '../../errors.ts';
import type { MeasuredPrediction } from '../checkpoints/prediction.ts';
import type { Files } from '../files/files.ts';
import { coefficients, readSchedule } from '../folders/schedule.ts';
import { type LoadOptions, openFiles } from './open-model.ts';

/** Of 1000 timesteps; the noise has 84 % and 96 % of the variance there. */
const TIMESTEPS = [600, 800];

/** The lower error wins only if the other is at least this many times higher. */
const FACTOR = 2;

/** Returns a landscape: sky that brightens towards the horizon, a sun, and ground; [3, h, w] in [-1, 1]. */
function landscape([channels, height, width]: readonly [number, number, number]): Float32Array {
  const [sky, light, sun, ground] = [
    [-0.4, 0.1, 0.7],
    [0.5, 0.6, 0.9],
    [0.95, 0.9, 0.6],
    [-0.3, 0, -0.6],
  ];
  const pixels = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const [u, v] = [(x + 0.5) / width, (y + 0.5) / height];
        const isSun = (u - 0.7) ** 2 + (v - 0.25) ** 2 < 0.01;
        const below = v > 0.6 + 0.04 * Math.sin(6 * u);
        const blended = sky![c]! + (light![c]! - sky![c]!) * (v / 0.6);
        pixels[(c * height + y) * width + x] = isSun ? sun![c]! : below ? ground![c]! * (1.6 - v) : blended;
      }
  return pixels;
}

/** Returns the prediction whose error is lower by the factor. @throws ModelError naming the option if neither is. */
export function decidePrediction(path: string, epsilonError: number, vError: number): MeasuredPrediction {
  const prediction =
    vError * FACTOR <= epsilonError ? 'v' : epsilonError * FACTOR <= vError ? 'epsilon' : undefined;
  if (prediction === undefined)
    throw new ModelError(
      `${path}: does not say whether its network predicts epsilon or v, and a measurement is not clear (errors ${epsilonError.toPrecision(3)} and ${vError.toPrecision(3)}); give --prediction epsilon or --prediction v (option prediction)`,
    );
  return { prediction, epsilonError, vError };
}

/**
 * Measures what the network of a text model predicts, whose files say epsilon.
 * @throws ModelError if the measurement is not clear; what `openFiles` throws.
 */
export async function measurePrediction(
  files: Files,
  { device, onCompile, cache, imageSize }: Pick<LoadOptions, 'device' | 'onCompile' | 'cache' | 'imageSize'>,
): Promise<MeasuredPrediction> {
  const schedule = await readSchedule(files, 'scheduler/scheduler_config.json');
  const readings = (['epsilon', 'v_prediction'] as const).flatMap((predictionType) =>
    TIMESTEPS.map((t) => ({ t, ...coefficients({ ...schedule, predictionType }, t) })),
  );
  const model = await openFiles(files, {
    ...(device && { device }),
    ...(onCompile && { onCompile }),
    ...(cache && { cache }),
    ...(imageSize !== undefined && { imageSize }),
    levels: () => readings.map(({ t }) => ({ t, weight: 1 })),
    coefficients: (_, i) => readings[i]!,
    candidates: () => [{ label: '', classidx: 0, prompt: '' }],
    precision: 'f32',
    tune: false,
    batchSize: 1,
    slots: 1,
  });
  try {
    model.encode(0, landscape(model.inputShape as [number, number, number]));
    const errors: number[] = [];
    for (const [level, { alpha }] of readings.entries()) {
      const [slot, noise] = [Uint32Array.of(0), Uint32Array.of(level % TIMESTEPS.length)];
      const batch = { slot, candidate: Uint32Array.of(0), level: Uint32Array.of(level), noise };
      // The error of eps_hat = alpha·output + beta·x_t is alpha² times that of the output.
      errors.push((await model.errors(batch))[0]! / alpha ** 2);
    }
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const count = TIMESTEPS.length;
    return decidePrediction(files.describe(''), mean(errors.slice(0, count)), mean(errors.slice(count)));
  } finally {
    model.close();
  }
}
