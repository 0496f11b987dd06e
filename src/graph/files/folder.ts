// A model folder of any kind: what is in it, checked as far as can be without reading weights.

import { join } from 'node:path';
import { z } from 'zod';
import { ModelError } from '../../kernels/errors.ts';
import { checked, quote, readJson } from './json.ts';
import { notSupported, type PipelineFolder, readPipelineFolder } from './pipelinefolder.ts';
import { entries } from './weights.ts';

export type {
  PixelModelFolder,
  TextModelFolder,
  TransformerFolder,
  VaeFolder,
} from './pipelinefolder.ts';
export { findWeights } from './weights.ts';

/** Every kind of model folder this version runs. */
export type ModelFolder = PipelineFolder;

/**
 * Reads a model folder: its pipeline, the configurations of its networks, schedule, class names and card; the
 * weights are only found, not opened. Throws `ModelError`, one sentence naming the file, for whatever is missing,
 * broken or not supported.
 */
export async function readModelFolder(path: string): Promise<ModelFolder> {
  const top = await entries(path);
  if (!top.has('model_index.json')) throw await withoutIndex(path, top);
  return readPipelineFolder(path, top);
}

/** Throws `ModelError` when a model cannot classify because it has no classes, or only one. */
export function requireClasses(folder: ModelFolder): void {
  if (folder.kind === 'text') return;
  if (folder.labels.length === 0)
    throw new ModelError(
      `${folder.path}: the model has no classes (neither num_class_embeds nor id2label is there), it cannot classify`,
    );
  if (folder.labels.length === 1)
    throw new ModelError(`${folder.path}: the model has only one class, there is nothing to decide`);
}

/** A folder without model_index.json may still be an EDM model, or one component of a pipeline. */
async function withoutIndex(path: string, top: ReadonlySet<string>): Promise<ModelError> {
  if (top.has('config.json')) {
    const file = join(path, 'config.json');
    const config = checked(z.object({ _class_name: z.string().optional() }), await readJson(file), file);
    if (config._class_name === 'EDMPrecond') return notSupported(file, 'EDMPrecond');
    if (config._class_name)
      return new ModelError(
        `${file}: ${quote(config._class_name)} alone is no model, wanted the folder with model_index.json`,
      );
  }
  return new ModelError(
    `${join(path, 'model_index.json')}: no such file, wanted a model folder as diffusers saves it`,
  );
}
