// Text-to-image models: diffusers' StableDiffusionPipeline 1.x and 2.x, whose candidates are prompts.

import { ModelError } from '../../../errors.ts';
import { parametersOf } from '../../files/parameters.ts';
import { clipTextTensors, withoutBuffers } from '../../networks/clip-text.ts';
import { readClipTextConfig } from '../../networks/clip-text-config.ts';
import { unet2dConditionTensors } from '../../networks/unet2d-condition.ts';
import { readUNet2DConditionConfig } from '../../networks/unet2d-condition-config.ts';
import { vaeDownscale } from '../../networks/vae-encoder-config.ts';
import { readTextEncoder } from '../../text/prompt-encoder.ts';
import type { Family } from '../family.ts';
import { readVae, VAE } from '../latent.ts';
import {
  CONVOLUTIONAL,
  components,
  diffusersNetwork,
  openPipeline,
  type PipelineConfig,
  timestepLevels,
} from '../pipeline.ts';
import { type TextNetworkConfig, textNetwork } from './text-network.ts';

/** A text-to-image model without its weights. */
export interface TextConfig extends PipelineConfig, TextNetworkConfig {}

const FOLDERS = { textEncoder: 'text_encoder', tokenizer: 'tokenizer' } as const;

const NETWORKS = {
  UNet2DConditionModel: diffusersNetwork(
    [
      ...CONVOLUTIONAL,
      'attention_head_dim',
      'cross_attention_dim',
      'use_linear_projection',
      'upcast_attention',
      'num_class_embeds',
      'num_attention_heads',
    ],
    async (files, name, file) =>
      parametersOf(file, unet2dConditionTensors(await readUNet2DConditionConfig(files, name))),
  ),
  CLIPTextModel: {
    stem: 'model',
    numbers: [
      'hidden_size',
      'intermediate_size',
      'num_hidden_layers',
      'num_attention_heads',
      'hidden_act',
      'vocab_size',
      'max_position_embeddings',
      'model_type',
    ],
    check: async (files, name, file) =>
      parametersOf(withoutBuffers(file), clipTextTensors(await readClipTextConfig(files, name))),
  },
  AutoencoderKL: VAE,
} satisfies Parameters<typeof components>[1];

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
    const vae = await readVae(files, unet.inChannels, unetFile);
    if (unet.outChannels !== unet.inChannels)
      throw new ModelError(
        `${unetFile}: expected out_channels ${unet.inChannels} as in_channels, got ${unet.outChannels} (learned variances are not supported)`,
      );
    const { hiddenSize } = await readClipTextConfig(files, 'text_encoder/config.json');
    if (hiddenSize !== unet.crossAttentionDim)
      throw new ModelError(
        `${unetFile}: cross_attention_dim is ${unet.crossAttentionDim}, but the text encoder has hidden_size ${hiddenSize}`,
      );
    return { ...(await pipeline.common('unet')), unet, vae, ...FOLDERS };
  },
  images({ unet, vae, files }, imageSize) {
    const factor = vaeDownscale(vae.config);
    if (!unet.sampleSize && imageSize === undefined)
      throw new ModelError(
        `${files.describe('')}: sample_size is missing in unet/config.json; give --image-size`,
      );
    const side = imageSize ?? unet.sampleSize![0] * factor;
    return {
      inputShape: [3, side, side],
      sideMultiple: factor * 2 ** (unet.blockOutChannels.length - 1),
    };
  },
  levels: (config) => timestepLevels(config, 100),
  candidates: () => ({ conditioning: 'text', labels: [] }),
  network: textNetwork,
  describe(index) {
    const networks = components(index, NETWORKS);
    if (!(index.json instanceof Object && FOLDERS.tokenizer in index.json)) return networks;
    return [
      ...networks,
      { part: FOLDERS.tokenizer, check: (files) => readTextEncoder({ files, ...FOLDERS }) },
    ];
  },
};
