// Parts of a model's folder that the user replaces.

import type { Files } from '../files/files.ts';
import { readJson } from '../files/json.ts';
import { jsonFile, withVirtualFiles } from '../files/virtual-files.ts';
import type { Prediction } from './prediction.ts';

const SCHEDULER = 'scheduler/scheduler_config.json';

/** Returns `prediction_type` of diffusers' schedulers. */
export const predictionType = (prediction: Prediction): string =>
  prediction === 'v' ? 'v_prediction' : 'epsilon';

/** Returns a folder's files in which the scheduler says what the network predicts. @throws ModelError if it has none. */
export async function overlayPrediction(files: Files, prediction: Prediction): Promise<Files> {
  const config = (await readJson(files, SCHEDULER)) as object;
  const changed = { ...config, prediction_type: predictionType(prediction) };
  return withVirtualFiles(files, new Map([[SCHEDULER, jsonFile(files.describe(SCHEDULER), changed)]]));
}
