// Finds the files of a model that is given by path, by name or by its files, and presents what is not a folder of diffusers
// as one.

import { stat } from 'node:fs/promises';
import { overlayPrediction } from '../checkpoints/overlay.ts';
import type { Prediction } from '../checkpoints/prediction.ts';
import { singleFile } from '../checkpoints/single-file.ts';
import type { Files } from '../files/files.ts';
import { fileAt, folderFiles } from './folder-files.ts';
import { modelFolder, shippedPath } from './model-path.ts';

/** Options that change a model's files before anything is read. */
export interface SourceOptions {
  readonly prediction?: Prediction | undefined;
}

const isFile = (path: string): Promise<boolean> =>
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

/**
 * Returns the files of a model that is given by path, by the name of a shipped one, or by its files. A single file is a
 * checkpoint (`.safetensors`, `.ckpt`).
 * @throws ModelError listing the shipped models if there is neither such a path nor such a name; or saying why a file is
 * not a checkpoint of a model that this version runs.
 */
export async function modelSource(
  model: string | Files,
  { prediction }: SourceOptions = {},
): Promise<ModelSource> {
  const path = typeof model === 'string' ? await modelFolder(model) : model;
  if (typeof path === 'string' && (await isFile(path))) {
    const single = await singleFile(...fileAt(path), { prediction, vocabulary: clipVocabulary() });
    return { files: single.files, isPredictionUnknown: single.prediction === undefined };
  }
  const files = typeof path === 'string' ? folderFiles(path) : path;
  const overlaid = prediction === undefined ? files : await overlayPrediction(files, prediction);
  return { files: overlaid, isPredictionUnknown: false };
}

/** Returns `modelSource`'s files. */
export const modelFiles = async (model: string | Files, options?: SourceOptions): Promise<Files> =>
  (await modelSource(model, options)).files;
