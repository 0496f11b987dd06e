// Models that are given by path or by the name of a shipped one: each function finds the files and passes them on.

import type { Files } from '../files/files.ts';
import type { Model } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';
import { costOfFiles, type Description, describeFiles, type EvaluationCost } from '../models/describe.ts';
import { type LoadOptions, type OpenModelOptions, openFiles } from '../models/open-model.ts';
import { readSummary } from '../models/summarise.ts';
import { fileAt } from './folder-files.ts';
import { modelFiles } from './model-path.ts';
import { userCache } from './user-cache.ts';

const withFiles = ({ noiseFile, ...options }: OpenModelOptions): LoadOptions => ({
  ...options,
  noiseFile: noiseFile === undefined ? undefined : fileAt(noiseFile),
  cache: userCache(),
});

/**
 * Opens a model, given by the path of its folder or by the name of a shipped one (see `shippedModels`), as a classifier.
 * @throws ModelError naming the file (and tensor) that is not in order, or listing the shipped models if there is no
 * such model; NoDeviceError without an adapter; OutOfMemoryError if not even a batch of one fits.
 * @example
 * import { openModel } from 'diffclass-stream';
 *
 * const model = await openModel('fashion-mnist');
 */
export async function openModel(path: string | Files, options: OpenModelOptions = {}): Promise<Model> {
  return openFiles(await modelFiles(path), withFiles(options));
}

/**
 * Reads what a model states about itself, without its weights. `model` is the path of its folder, the name of a shipped
 * model, or the model's files.
 * @throws ModelError naming the file that is not in order, or listing the shipped models if there is no such model.
 */
export async function readModel(model: string | Files): Promise<ModelSummary> {
  return readSummary(await modelFiles(model));
}

/**
 * Describes a model, given by the path of its folder or by the name of a shipped one. The model may be in any state: all
 * its faults are listed in `problems`.
 * @throws ModelError listing the shipped models if there is no such model.
 */
export async function describeModel(
  model: string | Files,
  options: OpenModelOptions = {},
): Promise<Description> {
  return describeFiles(await modelFiles(model), withFiles(options));
}

/**
 * Returns the cost of an evaluation of a model that is opened with some options. It needs no device.
 * @throws ModelError naming the file (and tensor) that is not in order.
 */
export async function evaluationCost(
  model: string | Files,
  options: OpenModelOptions = {},
): Promise<EvaluationCost> {
  return costOfFiles(await modelFiles(model), withFiles(options));
}
