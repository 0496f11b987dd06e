// Stable Diffusion XL: diffusers' StableDiffusionXLPipeline. Two text encoders encode each prompt, and the network also
// takes the prompt as one vector and the size of the image (Podell et al. 2023, "SDXL: Improving Latent Diffusion Models
// for High-Resolution Image Synthesis").

import { z } from 'zod';
import { ModelError } from '../../../errors.ts';
import { checked } from '../../files/json.ts';
import { readClipTextConfig } from '../../networks/clip-text-config.ts';
import { readUNet2DConditionConfig, SIZE_NUMBERS } from '../../networks/unet2d-condition-config.ts';
import type { Family } from '../family.ts';
import { readVae } from '../latent.ts';
import { openPipeline, timestepLevels } from '../pipeline.ts';
import { textNetwork } from './text-network.ts';
import { describeText, requireOutChannels, TEXT_FOLDERS, type TextConfig, textImages } from './text-parts.ts';

const indexSchema = z.object({
  requires_aesthetics_score: z.boolean().nullish(),
  force_zeros_for_empty_prompt: z.boolean().nullish(),
  text_encoder: z.tuple([z.string().nullable(), z.string().nullable()]).optional(),
});

const TOKENIZERS = ['CLIPTokenizer', 'CLIPTokenizerFast'];

export const xlFamily: Family<TextConfig> = {
  batch: 4,
  recognise: ({ className }) =>
    className === 'StableDiffusionXLPipeline' || className === 'StableDiffusionXLImg2ImgPipeline',
  async config(files, index) {
    const indexFile = files.describe(index.name);
    const own = checked(indexSchema, index.json, indexFile);
    if (own.requires_aesthetics_score || own.text_encoder?.[1] === null)
      throw new ModelError(
        `${indexFile}: this is the refiner of Stable Diffusion XL, which has one text encoder and takes an aesthetic score; give the base model`,
      );
    const pipeline = openPipeline(files, index, {
      unet: ['UNet2DConditionModel'],
      vae: ['AutoencoderKL'],
      text_encoder: ['CLIPTextModel', 'CLIPTextModelWithProjection'],
      tokenizer: TOKENIZERS,
      text_encoder_2: ['CLIPTextModelWithProjection'],
      tokenizer_2: TOKENIZERS,
    });
    const unetFile = files.describe('unet/config.json');
    const unet = await readUNet2DConditionConfig(files, 'unet/config.json');
    if (!unet.addedEmbedding)
      throw new ModelError(
        `${unetFile}: expected addition_embed_type text_time, as ${index.className} has, got none`,
      );
    const vae = await readVae(files, unet.inChannels, unetFile);
    requireOutChannels(unet, unetFile);
    const configs = [];
    for (const { textEncoder } of TEXT_FOLDERS)
      configs.push(await readClipTextConfig(files, `${textEncoder}/config.json`));
    const [first, second] = configs.map(({ hiddenSize }) => hiddenSize) as [number, number];
    if (first + second !== unet.crossAttentionDim)
      throw new ModelError(
        `${unetFile}: cross_attention_dim is ${unet.crossAttentionDim}, but the text encoders have hidden_size ${first} and ${second}, in all ${first + second}`,
      );
    const { pooledDim, sizeDim } = unet.addedEmbedding;
    const { projectionDim } = configs[1]!;
    if (projectionDim === undefined)
      throw new ModelError(
        `${files.describe('text_encoder_2/config.json')}: expected CLIPTextModelWithProjection, whose vector of a prompt the network takes, got CLIPTextModel`,
      );
    if (projectionDim !== pooledDim)
      throw new ModelError(
        `${unetFile}: expected projection_class_embeddings_input_dim ${projectionDim + SIZE_NUMBERS * sizeDim}, projection_dim ${projectionDim} of text_encoder_2 and ${SIZE_NUMBERS} times addition_time_embed_dim ${sizeDim}, got ${pooledDim + SIZE_NUMBERS * sizeDim}`,
      );
    return {
      ...(await pipeline.common('unet')),
      unet,
      vae,
      encoders: TEXT_FOLDERS.map((folders) => ({ files, ...folders })),
      states: 'penultimate',
      zerosForNoPrompt: own.force_zeros_for_empty_prompt ?? true,
    };
  },
  images: textImages,
  levels: (config) => timestepLevels(config, 100),
  candidates: () => ({ conditioning: 'text', labels: [] }),
  network: textNetwork,
  describe: describeText,
};
