// A model folder of any kind: what is in it, checked as far as is possible without reading weights.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import type { Files } from '../files/files.ts';
import { checked, quote, readJson } from '../files/json.ts';
import { type EdmFolder, readEdmFolder } from '../families/edm/edm-family.ts';
import { OPTIMAL_CLASS, type OptimalFolder, readOptimalFolder } from '../families/optimal/optimal-family.ts';
import { type PipelineFolder, readPipelineFolder } from '../families/pipeline.ts';
import { entries } from '../folders/weights.ts';

export type { EdmFolder } from '../families/edm/edm-family.ts';
export type { OptimalFolder } from '../families/optimal/optimal-family.ts';
export type {
  PixelModelFolder,
  TextModelFolder,
  TransformerFolder,
  VaeFolder,
} from '../families/pipeline.ts';
export { findWeights } from '../folders/weights.ts';

/** Every kind of model folder this version runs. */
export type ModelFolder = PipelineFolder | EdmFolder | OptimalFolder;

/**
 * Reads a model folder: its pipeline, the configurations of its networks, schedule, class names and card. The weights
 * are only found, not opened.
 * @throws ModelError, one sentence naming the file that is missing, broken or not supported.
 */
export async function readModelFolder(files: Files): Promise<ModelFolder> {
  const top = await entries(files, '');
  if (top.has('model_index.json')) return readPipelineFolder(files);
  const className = top.has('config.json') ? await classOf(files, 'config.json') : undefined;
  if (className === 'EDMPrecond') return readEdmFolder(files);
  if (className === OPTIMAL_CLASS) return readOptimalFolder(files);
  throw noModel(files, className);
}

/** Throws `ModelError` if a model cannot classify because it has no classes, or only one. */
export function requireClasses(folder: ModelFolder): void {
  if (folder.kind === 'text') return;
  const path = folder.files.describe('');
  if (folder.labels.length === 0)
    throw new ModelError(
      `${path}: the model has no classes (${folder.kind === 'edm' ? 'label_dim is 0' : 'it has neither num_class_embeds nor id2label'}), so it cannot classify`,
    );
  if (folder.labels.length === 1)
    throw new ModelError(`${path}: the model has only one class, so there is nothing to decide`);
}

/** Returns the class that a configuration belongs to, if it names one. */
async function classOf(files: Files, name: string): Promise<string | undefined> {
  const schema = z.object({ _class_name: z.string().optional() });
  return checked(schema, await readJson(files, name), files.describe(name))._class_name;
}

/** A folder that is no model may be one component of a pipeline, whose class it names. */
const noModel = (files: Files, className: string | undefined): ModelError =>
  new ModelError(
    className
      ? `${files.describe('config.json')}: ${quote(className)} alone is not a model; give the folder with model_index.json`
      : `${files.describe('model_index.json')}: no such file; expected a model folder as diffusers saves it, or one with the config.json of EDMPrecond`,
  );
