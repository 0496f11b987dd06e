// The configuration of diffusers' DiTTransformer2DModel, checked. Older DiT folders have the class Transformer2DModel, which
// is read too. Values that do not belong to a DiT are refused by name.

import { z } from 'zod';
import { className } from '../files/class-name.ts';
import { jsonReader } from '../files/json.ts';
import { count, layerCount, readKeys } from './unet-keys.ts';

/** The configuration of a DiT (Peebles and Xie 2023), by diffusers' names in camel case. */
export interface DitConfig {
  readonly numAttentionHeads: number;
  /** Channels of a head; the width of the network is numAttentionHeads · attentionHeadDim. */
  readonly attentionHeadDim: number;
  readonly inChannels: number;
  /** Twice inChannels if the network also predicts the variance; the prediction comes first. */
  readonly outChannels: number;
  readonly numLayers: number;
  /** Side of the square latents that the network was trained on. */
  readonly sampleSize: number;
  readonly patchSize: number;
  /** The number of classes; the tables have one more row, for no class. */
  readonly numEmbedsAdaNorm: number;
  readonly activation: 'gelu-tanh' | 'gelu';
  /** Whether the projections to query, key and value have biases. */
  readonly attentionBias: boolean;
  /** The epsilon of the norm before the MLP; the other norms have 1e-6. */
  readonly normEps: number;
  /** Whether that norm has a weight and a bias. */
  readonly normElementwiseAffine: boolean;
  /** Positions are divided by this number before their sinusoids are computed. */
  readonly interpolationScale: number;
}

const shared = {
  num_attention_heads: count.default(16),
  in_channels: count.nullish(),
  out_channels: count.nullish(),
  dropout: z.number().min(0).max(1).default(0),
  norm_num_groups: count.nullish(),
  num_embeds_ada_norm: count.nullish(),
  upcast_attention: z.boolean().nullish(),
  norm_eps: z.number().min(0).default(1e-5),
};
const named = {
  ...shared,
  attention_head_dim: count.default(72),
  num_layers: layerCount.default(28),
  attention_bias: z.boolean().default(true),
  sample_size: count.default(32),
  patch_size: count.default(2),
  activation_fn: z.string().default('gelu-approximate'),
  norm_type: z.string().default('ada_norm_zero'),
  norm_elementwise_affine: z.boolean().default(false),
};
/** The keys and defaults of Transformer2DModel, the class that DiT once shared with many other networks. */
const general = {
  ...shared,
  attention_head_dim: count.default(88),
  num_layers: layerCount.default(1),
  attention_bias: z.boolean().default(false),
  sample_size: count.nullish(),
  patch_size: count.nullish(),
  activation_fn: z.string().default('geglu'),
  norm_type: z.string().default('layer_norm'),
  norm_elementwise_affine: z.boolean().default(true),
  attention_type: z.string().default('default'),
  interpolation_scale: z.number().positive().nullish(),
};

/** Reads a DiT's `config.json`. Throws `ModelError` with the file, the key and the expected value. */
export const readDitConfig = jsonReader(parseDitConfig);

/** Returns the configuration of a parsed `config.json`; `file` is its name in messages. */
export function parseDitConfig(config: unknown, file: string): DitConfig {
  const given = (config as { _class_name?: unknown } | null)?._class_name;
  const isGeneral = className.safeParse(given).data === 'Transformer2DModel';
  const { got, refuse, choose } = isGeneral
    ? readKeys(config, file, 'Transformer2DModel', general)
    : readKeys(config, file, 'DiTTransformer2DModel', named);
  choose('norm_type', got.norm_type, ['ada_norm_zero']);
  if ('attention_type' in got) choose('attention_type', got.attention_type, ['default']);
  const present = (key: string, value: number | null | undefined): number => {
    if (value == null) throw refuse(`${key}: expected a number, got null`);
    return value;
  };
  const inChannels = isGeneral ? present('in_channels', got.in_channels) : (got.in_channels ?? 4);
  const sampleSize = present('sample_size', got.sample_size);
  const patchSize = present('patch_size', got.patch_size);
  if (sampleSize % patchSize !== 0)
    throw refuse(`sample_size ${sampleSize} is not a multiple of patch_size ${patchSize}`);
  const outChannels = got.out_channels ?? inChannels;
  if (outChannels < inChannels)
    throw refuse(`out_channels ${outChannels} is less than in_channels ${inChannels}`);
  const width = got.num_attention_heads * got.attention_head_dim;
  if (width % 4 !== 0)
    throw refuse(
      `num_attention_heads · attention_head_dim: expected a multiple of 4 for the position embedding, got ${width}`,
    );
  const activation = choose('activation_fn', got.activation_fn, ['gelu-approximate', 'gelu']);
  const interpolation = 'interpolation_scale' in got ? got.interpolation_scale : undefined;
  const classes = isGeneral ? got.num_embeds_ada_norm : (got.num_embeds_ada_norm ?? 1000);
  return {
    numAttentionHeads: got.num_attention_heads,
    attentionHeadDim: got.attention_head_dim,
    inChannels,
    outChannels,
    numLayers: got.num_layers,
    sampleSize,
    patchSize,
    numEmbedsAdaNorm: present('num_embeds_ada_norm', classes),
    activation: activation === 'gelu' ? 'gelu' : 'gelu-tanh',
    attentionBias: got.attention_bias,
    normEps: got.norm_eps,
    normElementwiseAffine: got.norm_elementwise_affine,
    interpolationScale: isGeneral ? (interpolation ?? Math.max(Math.floor(sampleSize / 64), 1)) : 1,
  };
}
