// Finds the files of a model that is given by path, by name or by its files, and presents what is not a folder of diffusers
// as one.

import { stat } from 'node:fs/promises';
import { type OtherVae, overlayPrediction, overlayVae } from '../checkpoints/overlay.ts';
import { singleFile } from '../checkpoints/single-file.ts';
import type { Files } from '../files/files.ts';
import type { OpenModelOptions } from '../models/open-model.ts';
import { fileAt, folderFiles } from './folder-files.ts';
import { modelFolder, shippedPath } from './model-path.ts';

/** Options that change a model's files before anything is read. */
export type SourceOptions = Pick<OpenModelOptions, 'prediction' | 'vae'>;

/** Returns whether a path is that of a file. */
export const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isFile(),
    () => false,
  );

/** CLIP's vocabulary, next to the shipped models. */
const clipVocabulary = (): Files => folderFiles(shippedPath('clip-tokenizer'));

/** A model's files, and whether it is still unknown what its network predicts. */
export interface ModelSource {
  readonly files: Files;
  readonly isPredictionUnknown: boolean;
}

/** Returns the autoencoder at a path, for `overlayVae`. */
async function otherVae(path: string, scaling?: Readonly<Record<string, unknown>>): Promise<OtherVae> {
  return (await isFile(path))
    ? { file: fileAt(path), ...(scaling && { scaling }) }
    : { folder: folderFiles(path) };
}

/** Presents the checkpoint at a path as a folder. */
async function checkpointSource(path: string, { prediction, vae }: SourceOptions): Promise<ModelSource> {
  const single = await singleFile(...fileAt(path), {
    prediction,
    vocabulary: clipVocabulary(),
    hasOtherVae: vae !== undefined,
  });
  const scaling = { scaling_factor: single.scalingFactor };
  const files =
    vae === undefined ? single.files : await overlayVae(single.files, await otherVae(vae, scaling));
  return { files, isPredictionUnknown: single.prediction === undefined };
}

/**
 * Returns the files of a model that is given by path, by name, or by its files. A path of a file is a checkpoint
 * (`.safetensors`, `.ckpt`).
 * @throws ModelError saying which models there are if there is none of the name, why a file is not a checkpoint of a model
 * that this version runs, or that a folder has nothing to replace.
 */
export async function modelSource(model: string | Files, options: SourceOptions = {}): Promise<ModelSource> {
  const { prediction, vae } = options;
  const path = typeof model === 'string' ? await modelFolder(model) : model;
  if (typeof path === 'string' && (await isFile(path))) return checkpointSource(path, options);
  let files = typeof path === 'string' ? folderFiles(path) : path;
  if (prediction !== undefined) files = await overlayPrediction(files, prediction);
  if (vae !== undefined) files = await overlayVae(files, await otherVae(vae));
  return { files, isPredictionUnknown: false };
}

/** Returns `modelSource`'s files. */
export const modelFiles = async (model: string | Files, options?: SourceOptions): Promise<Files> =>
  (await modelSource(model, options)).files;
