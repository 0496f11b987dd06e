// What the families of text-to-image models share: the networks of their folders, as `info` describes them, and the images
// that they take.

import { ModelError } from '../../../errors.ts';
import type { Files } from '../../files/files.ts';
import { parametersOf } from '../../files/parameters.ts';
import { clipTextTensors, withoutBuffers } from '../../networks/clip-text.ts';
import { readClipTextConfig } from '../../networks/clip-text-config.ts';
import { unet2dConditionTensors } from '../../networks/unet2d-condition.ts';
import {
  readUNet2DConditionConfig,
  type UNet2DConditionConfig,
} from '../../networks/unet2d-condition-config.ts';
import { vaeDownscale } from '../../networks/vae-encoder-config.ts';
import { readTextEncoder } from '../../text/prompt-encoder.ts';
import type { Images, ModelIndex, NetworkKind, Part } from '../family.ts';
import { VAE } from '../latent.ts';
import { CONVOLUTIONAL, components, diffusersNetwork, type PipelineConfig } from '../pipeline.ts';
import type { TextNetworkConfig } from './text-network.ts';

/** A text-to-image model without its weights. */
export interface TextConfig extends PipelineConfig, TextNetworkConfig {}

/** The folders of a text encoder and its tokenizer. Models with one encoder have the first pair, XL has both. */
export const TEXT_FOLDERS = [
  { textEncoder: 'text_encoder', tokenizer: 'tokenizer' },
  { textEncoder: 'text_encoder_2', tokenizer: 'tokenizer_2' },
] as const;

const clipText: NetworkKind = {
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
    'projection_dim',
  ],
  check: async (files, name, file) =>
    parametersOf(withoutBuffers(file), clipTextTensors(await readClipTextConfig(files, name))),
};

const NETWORKS = {
  UNet2DConditionModel: diffusersNetwork(
    [
      ...CONVOLUTIONAL,
      'attention_head_dim',
      'cross_attention_dim',
      'transformer_layers_per_block',
      'use_linear_projection',
      'upcast_attention',
      'num_class_embeds',
      'num_attention_heads',
      'addition_embed_type',
    ],
    async (files, name, file) =>
      parametersOf(file, unet2dConditionTensors(await readUNet2DConditionConfig(files, name))),
  ),
  CLIPTextModel: clipText,
  CLIPTextModelWithProjection: clipText,
  AutoencoderKL: VAE,
} satisfies Parameters<typeof components>[1];

/** Returns the networks and tokenizers that an index names. */
export function describeText(index: ModelIndex): readonly Part[] {
  const named = (part: string) => index.json instanceof Object && part in index.json;
  return [
    ...components(index, NETWORKS),
    ...TEXT_FOLDERS.filter(({ tokenizer }) => named(tokenizer)).map((folders) => ({
      part: folders.tokenizer,
      check: (files: Files) => readTextEncoder({ files, ...folders }),
    })),
  ];
}

/** Returns the images that a model takes: by default of the size that it was trained on. */
export function textImages({ unet, vae, files }: TextConfig, imageSize: number | undefined): Images {
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
}

/** @throws ModelError if the network predicts more channels than its latents have. `file` is its configuration. */
export function requireOutChannels({ inChannels, outChannels }: UNet2DConditionConfig, file: string): void {
  if (outChannels !== inChannels)
    throw new ModelError(
      `${file}: expected out_channels ${inChannels} as in_channels, got ${outChannels} (learned variances are not supported)`,
    );
}
