// A model folder of any kind: what is in it, checked as far as can be without reading weights.

import { join } from 'node:path';
import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { checked, quote, readJson } from '../files/json.ts';
import { type EdmFolder, readEdmFolder } from './edm-folder.ts';
import { OPTIMAL_CLASS, type OptimalFolder, readOptimalFolder } from './optimal-folder.ts';
import { type PipelineFolder, readPipelineFolder } from './pipeline-folder.ts';
import { entries } from './weights.ts';

export type { EdmFolder } from './edm-folder.ts';
export type { OptimalFolder } from './optimal-folder.ts';
export type {
  PixelModelFolder,
  TextModelFolder,
  TransformerFolder,
  VaeFolder,
} from './pipeline-folder.ts';
export { findWeights } from './weights.ts';

/** Every kind of model folder this version runs. */
export type ModelFolder = PipelineFolder | EdmFolder | OptimalFolder;

/**
 * Reads a model folder: its pipeline, the configurations of its networks, schedule, class names and card; the
 * weights are only found, not opened. Throws `ModelError`, one sentence naming the file, for whatever is missing,
 * broken or not supported.
 */
export async function readModelFolder(path: string): Promise<ModelFolder> {
  const top = await entries(path);
  if (top.has('model_index.json')) return readPipelineFolder(path, top);
  const className = top.has('config.json') ? await classOf(join(path, 'config.json')) : undefined;
  if (className === 'EDMPrecond') return readEdmFolder(path, top);
  if (className === OPTIMAL_CLASS) return readOptimalFolder(path, top);
  throw noModel(path, className);
}

/** Throws `ModelError` when a model cannot classify because it has no classes, or only one. */
export function requireClasses(folder: ModelFolder): void {
  if (folder.kind === 'text') return;
  if (folder.labels.length === 0)
    throw new ModelError(
      `${folder.path}: the model has no classes (${folder.kind === 'edm' ? 'label_dim is 0' : 'neither num_class_embeds nor id2label is there'}), it cannot classify`,
    );
  if (folder.labels.length === 1)
    throw new ModelError(`${folder.path}: the model has only one class, there is nothing to decide`);
}

/** The class that a configuration is of, where it says. */
async function classOf(file: string): Promise<string | undefined> {
  return checked(z.object({ _class_name: z.string().optional() }), await readJson(file), file)._class_name;
}

/** A folder that is no model may be one component of a pipeline. */
const noModel = (path: string, className: string | undefined): ModelError =>
  new ModelError(
    className
      ? `${join(path, 'config.json')}: ${quote(className)} alone is no model, wanted the folder with model_index.json`
      : `${join(path, 'model_index.json')}: no such file, wanted a model folder as diffusers saves it, or EDMPrecond's config.json`,
  );
