// Parts of a model's folder that the user replaces.

import { ModelError } from '../../errors.ts';
import { openCheckpoint } from '../files/checkpoint-file.ts';
import { type Files, nameIn } from '../files/files.ts';
import { readJson } from '../files/json.ts';
import { jsonFile, type VirtualFile, withVirtualFiles } from '../files/virtual-files.ts';
import { virtualSafetensors } from '../files/virtual-safetensors.ts';
import { findWeights } from '../folders/weights.ts';
import { ldmVae, vaeTensors } from './ldm-vae.ts';
import type { Prediction } from './prediction.ts';

const SCHEDULER = 'scheduler/scheduler_config.json';
const VAE_CONFIG = 'vae/config.json';
const VAE_STEM = 'diffusion_pytorch_model';

/** Returns `prediction_type` of diffusers' schedulers. */
export const predictionType = (prediction: Prediction): string =>
  prediction === 'v' ? 'v_prediction' : 'epsilon';

/** Reads a JSON file that holds an object. */
async function readObject(files: Files, name: string): Promise<Readonly<Record<string, unknown>>> {
  const value = await readJson(files, name);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ModelError(`${files.describe(name)}: expected an object`);
  return value as Record<string, unknown>;
}

/** Returns a folder's files in which the scheduler says what the network predicts. @throws ModelError if it has none. */
export async function overlayPrediction(files: Files, prediction: Prediction): Promise<Files> {
  const changed = { ...(await readObject(files, SCHEDULER)), prediction_type: predictionType(prediction) };
  return withVirtualFiles(files, new Map([[SCHEDULER, jsonFile(files.describe(SCHEDULER), changed)]]));
}

/** Returns how a model scales its latents: another autoencoder in a single file does not tell. */
async function scalingOf(files: Files): Promise<Readonly<Record<string, unknown>>> {
  const { scaling_factor, shift_factor } = await readObject(files, VAE_CONFIG);
  return { scaling_factor, shift_factor };
}

/** An autoencoder in place of a model's: a folder of diffusers, or a single file. */
export type OtherVae =
  | { readonly folder: Files }
  | {
      readonly file: readonly [files: Files, name: string];
      readonly scaling?: Readonly<Record<string, unknown>>;
    };

const withVae = (files: Files, config: VirtualFile, weights: VirtualFile): Files =>
  withVirtualFiles(
    files,
    new Map([
      [VAE_CONFIG, config],
      [`vae/${VAE_STEM}.safetensors`, weights],
    ]),
  );

/**
 * Returns a model's files with another autoencoder. Latents of one in a single file are scaled as the model's own are, or as
 * `scaling` says.
 * @throws ModelError naming the file if it holds no autoencoder.
 */
export async function overlayVae(files: Files, vae: OtherVae): Promise<Files> {
  if ('file' in vae) {
    const checkpoint = await openCheckpoint(...vae.file);
    try {
      const { path } = checkpoint;
      const tensors = vaeTensors(checkpoint.tensors);
      if (!tensors)
        throw new ModelError(`${path}: expected an autoencoder, got no tensor "encoder.conv_in.weight"`);
      const { config } = ldmVae(tensors, path, vae.scaling ?? (await scalingOf(files)));
      return withVae(files, jsonFile(path, config), {
        description: path,
        async open() {
          const opened = await openCheckpoint(...vae.file);
          return virtualSafetensors(
            ldmVae(vaeTensors(opened.tensors)!, path, {}).tensors,
            new Map(),
            opened.close,
          );
        },
      });
    } finally {
      await checkpoint.close();
    }
  }
  const { folder: other } = vae;
  const folder = (await other.list(''))?.includes('model_index.json') ? 'vae' : '';
  const config = nameIn(folder, 'config.json');
  const weights = await findWeights(other, folder, VAE_STEM);
  if (weights.endsWith('.json'))
    throw new ModelError(`${other.describe(weights)}: expected an autoencoder in one file, got shards`);
  const same = (name: string): VirtualFile => ({
    description: other.describe(name),
    open: () => other.open(name),
  });
  return withVae(files, same(config), same(weights));
}
