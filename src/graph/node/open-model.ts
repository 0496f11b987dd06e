// Models that are given by path or by the name of a shipped one: each function finds the files and passes them on.

import { basename } from 'node:path';
import { ModelError } from '../../errors.ts';
import type { Files } from '../files/files.ts';
import type { Model } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';
import { costOfFiles, type Description, describeFiles, type EvaluationCost } from '../models/describe.ts';
import { type LoadOptions, type OpenModelOptions, openFiles } from '../models/open-model.ts';
import { readSummary } from '../models/summarise.ts';
import { adaptedFiles } from './adapted-files.ts';
import { fileAt } from './folder-files.ts';
import { modelDigest } from './model-digest.ts';
import { isFile, type ModelSource, modelFiles, modelSource } from './model-source.ts';
import { packageVersion } from './package-version.ts';
import { predictedSource } from './predicted-source.ts';
import { userCache } from './user-cache.ts';

const withFiles = ({
  noiseFile,
  prediction: _prediction,
  onPrediction: _onPrediction,
  vae: _vae,
  loras: _loras,
  embeddings: _embeddings,
  ...options
}: OpenModelOptions): LoadOptions => ({
  ...options,
  noiseFile: noiseFile === undefined ? undefined : fileAt(noiseFile),
  cache: userCache(),
});

/** Identifies a model's files and this version. Files that are not on a disk cannot be told apart. */
async function fingerprintOf(files: Files, overlays: Readonly<Record<string, string>>): Promise<string> {
  const digest = await modelDigest(files.describe(''));
  return digest === '' ? '' : [files.name, digest, ...Object.values(overlays), packageVersion()].join(' ');
}

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
  const load = withFiles(options);
  const source = await predictedSource(path, options, load, (files) => fingerprintOf(files, {}));
  const adapted = await adaptedFiles(source.files, options);
  const overlays = { ...source.overlays, ...adapted.overlays };
  const { files } = adapted;
  return openFiles(files, {
    ...load,
    overlays,
    fingerprint: () => fingerprintOf(files, overlays),
  });
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
  let source: ModelSource;
  try {
    source = await modelSource(model, options);
  } catch (error) {
    const path = typeof model === 'string' && (await isFile(model)) ? model : undefined;
    if (path === undefined || !(error instanceof ModelError)) throw error;
    return { name: basename(path), path, networks: [], problems: [error.message] };
  }
  const { files } = await adaptedFiles(source.files, options);
  const description = await describeFiles(files, withFiles(options));
  return source.isPredictionUnknown ? { ...description, predictionType: 'unknown' } : description;
}

/**
 * Returns the cost of an evaluation of a model that is opened with some options. It needs no device.
 * @throws ModelError naming the file (and tensor) that is not in order.
 */
export async function evaluationCost(
  model: string | Files,
  options: OpenModelOptions = {},
): Promise<EvaluationCost> {
  const { files } = await adaptedFiles(await modelFiles(model, options), options);
  return costOfFiles(files, withFiles(options));
}
