// What the network of a checkpoint predicts, and whether its noise schedule ends in pure noise, as far as keys and metadata
// say so.

import { ModelError } from '../../errors.ts';
import type { CheckpointFile } from '../files/checkpoint-file.ts';
import { quote } from '../files/json.ts';

/** What a denoising network predicts: the noise, or v = a·eps - b·x0. */
export type Prediction = 'epsilon' | 'v';

/** What a network predicts, by measurement: the mean squared error of its output taken for noise, and taken for v. */
export interface MeasuredPrediction {
  readonly prediction: Prediction;
  readonly epsilonError: number;
  readonly vError: number;
}

/** Metadata that names the prediction: of Stability's model specification, and of kohya's training scripts. */
const PREDICTION_KEYS = ['modelspec.prediction_type', 'modelspec.predict_key', 'prediction_type'];

const NAMES: Readonly<Record<string, Prediction>> = {
  epsilon: 'epsilon',
  eps: 'epsilon',
  v: 'v',
  v_prediction: 'v',
  'v-prediction': 'v',
  vpred: 'v',
  velocity: 'v',
};

/** `modelspec.architecture` of the models whose architecture includes the prediction. */
const ARCHITECTURES: readonly (readonly [pattern: RegExp, prediction: Prediction])[] = [
  [/^stable-diffusion-v2-768-v/, 'v'],
  [/^stable-diffusion-v2-512/, 'epsilon'],
];

const isTrue = (value: string | undefined): boolean => value?.toLowerCase() === 'true';

/**
 * Returns what a checkpoint says about its prediction; undefined if it says nothing.
 * @throws ModelError if it names a prediction that is neither.
 */
export function statedPrediction({ path, tensors, metadata }: CheckpointFile): Prediction | undefined {
  if (tensors.has('v_pred')) return 'v';
  for (const key of PREDICTION_KEYS) {
    const value = metadata.get(key);
    if (value === undefined || value === '') continue;
    const name = value.toLowerCase();
    if (!Object.hasOwn(NAMES, name))
      throw new ModelError(
        `${path}: the metadata's ${key} is ${quote(value)}, expected epsilon or v; give --prediction if it is wrong`,
      );
    return NAMES[name];
  }
  if (isTrue(metadata.get('ss_v_parameterization'))) return 'v';
  const architecture = metadata.get('modelspec.architecture') ?? '';
  return ARCHITECTURES.find(([pattern]) => pattern.test(architecture))?.[1];
}

/** Returns whether a checkpoint says that its noise schedule was rescaled to zero terminal SNR. */
export const hasZeroTerminalSnr = ({ tensors, metadata }: CheckpointFile): boolean =>
  tensors.has('ztsnr') || isTrue(metadata.get('ss_zero_terminal_snr'));
