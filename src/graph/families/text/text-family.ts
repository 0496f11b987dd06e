// Text-to-image models: diffusers' StableDiffusionPipeline 1.x and 2.x, whose candidates are prompts.

import { ModelError } from '../../../errors.ts';
import { readClipTextConfig } from '../../networks/clip-text-config.ts';
import { readUNet2DConditionConfig } from '../../networks/unet2d-condition-config.ts';
import type { Family } from '../family.ts';
import { readVae } from '../latent.ts';
import { openPipeline, timestepLevels } from '../pipeline.ts';
import { textNetwork } from './text-network.ts';
import { describeText, requireOutChannels, TEXT_FOLDERS, type TextConfig, textImages } from './text-parts.ts';

export const textFamily: Family<TextConfig> = {
  batch: 16,
  recognise: ({ className }) =>
    className === 'StableDiffusionPipeline' || className === 'StableDiffusionImg2ImgPipeline',
  async config(files, index) {
    const pipeline = openPipeline(files, index, {
      unet: ['UNet2DConditionModel'],
      vae: ['AutoencoderKL'],
      text_encoder: ['CLIPTextModel'],
      tokenizer: ['CLIPTokenizer', 'CLIPTokenizerFast'],
    });
    const unetFile = files.describe('unet/config.json');
    const unet = await readUNet2DConditionConfig(files, 'unet/config.json');
    if (unet.addedEmbedding)
      throw new ModelError(
        `${unetFile}: addition_embed_type text_time is of Stable Diffusion XL, but ${pipeline.indexFile} says ${index.className}; expected StableDiffusionXLPipeline there`,
      );
    const vae = await readVae(files, unet.inChannels, unetFile);
    requireOutChannels(unet, unetFile);
    const { hiddenSize } = await readClipTextConfig(files, 'text_encoder/config.json');
    if (hiddenSize !== unet.crossAttentionDim)
      throw new ModelError(
        `${unetFile}: cross_attention_dim is ${unet.crossAttentionDim}, but the text encoder has hidden_size ${hiddenSize}`,
      );
    return {
      ...(await pipeline.common('unet')),
      unet,
      vae,
      encoders: [{ files, ...TEXT_FOLDERS[0] }],
      states: 'last',
      zerosForNoPrompt: false,
    };
  },
  images: textImages,
  levels: (config) => timestepLevels(config, 100),
  candidates: () => ({ conditioning: 'text', labels: [] }),
  network: textNetwork,
  describe: describeText,
};
