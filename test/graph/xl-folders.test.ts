// Tests that folders which look like Stable Diffusion XL, but are not, are refused by name.

import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Files } from '../../src/graph/files/files.ts';
import { readJson } from '../../src/graph/files/json.ts';
import { jsonFile, withVirtualFiles } from '../../src/graph/files/virtual-files.ts';
import { readModelConfig } from '../../src/graph/models/families.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';

const golden = folderFiles(join(import.meta.dirname, '..', 'golden', 'pipeline-xl'));

/** Returns the golden model with some keys of a JSON file changed. */
async function changed(name: string, changes: Record<string, unknown>): Promise<Files> {
  const json = (await readJson(golden, name)) as object;
  return withVirtualFiles(golden, new Map([[name, jsonFile(name, { ...json, ...changes })]]));
}

it.each<[what: string, file: string, changes: Record<string, unknown>, message: RegExp]>([
  [
    'the refiner, by its aesthetic score',
    'model_index.json',
    { requires_aesthetics_score: true },
    /model_index\.json: this is the refiner of Stable Diffusion XL, .*; give the base model$/,
  ],
  [
    'the refiner, by its text encoders',
    'model_index.json',
    { _class_name: 'StableDiffusionXLImg2ImgPipeline', text_encoder: [null, null], tokenizer: [null, null] },
    /model_index\.json: this is the refiner of Stable Diffusion XL/,
  ],
  [
    'an inpainting network',
    'unet/config.json',
    { in_channels: 9 },
    /unet\/config\.json: out_channels 4 is less than in_channels 9: .*inpainting/,
  ],
  [
    'another added embedding',
    'unet/config.json',
    { addition_embed_type: 'image' },
    /unet\/config\.json: addition_embed_type: expected text_time, as in Stable Diffusion XL, got "image"/,
  ],
  [
    'no added embedding',
    'unet/config.json',
    {
      addition_embed_type: null,
      addition_time_embed_dim: null,
      projection_class_embeddings_input_dim: null,
    },
    /unet\/config\.json: expected addition_embed_type text_time, as StableDiffusionXLPipeline has, got none$/,
  ],
  [
    'text encoders of other widths',
    'unet/config.json',
    { cross_attention_dim: 64 },
    /cross_attention_dim is 64, but the text encoders have hidden_size 16 and 24, in all 40$/,
  ],
  [
    'a vector of another length',
    'unet/config.json',
    { projection_class_embeddings_input_dim: 40 },
    /expected projection_class_embeddings_input_dim 48, projection_dim 12 of text_encoder_2 and 6 times addition_time_embed_dim 6, got 40$/,
  ],
  [
    'a second text encoder without a projection',
    'text_encoder_2/config.json',
    { architectures: ['CLIPTextModel'] },
    /text_encoder_2\/config\.json: expected CLIPTextModelWithProjection, .* got CLIPTextModel$/,
  ],
  [
    'the network of XL in a pipeline of 1.x',
    'model_index.json',
    { _class_name: 'StableDiffusionPipeline' },
    /addition_embed_type text_time is of Stable Diffusion XL, but .* says StableDiffusionPipeline/,
  ],
])('%s is refused', async (_, file, changes, message) => {
  await expect(readModelConfig(await changed(file, changes))).rejects.toThrow(message);
});
