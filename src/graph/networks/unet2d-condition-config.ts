// The configuration of diffusers' UNet2DConditionModel as in Stable Diffusion 1.x, 2.x and XL, checked, with diffusers'
// defaults filled in and one entry per level in every list. Everything else is refused by name. Other model families
// (Kandinsky, IF, GLIGEN, ...) use the same class with further options.

import { z } from 'zod';
import { jsonReader, quote } from '../files/json.ts';
import type { UNetConfig } from './unet-config.ts';
import { blockTypes, count, layerCount, type Refuse, readKeys, unetConfig, unetKeys } from './unet-keys.ts';

const downTypes = ['CrossAttnDownBlock2D', 'DownBlock2D'] as const;
const midTypes = ['UNetMidBlock2DCrossAttn', 'UNetMidBlock2D'] as const;
const upTypes = ['CrossAttnUpBlock2D', 'UpBlock2D'] as const;

/**
 * The configuration of a UNet2DConditionModel. Lists have one entry per level of resolution, the largest first; a level has
 * one down block and one up block. `actFn` is also the activation of the time embedding and the output.
 */
export interface UNet2DConditionConfig extends UNetConfig {
  readonly timeEmbeddingType: 'positional';
  readonly downBlockTypes: readonly (typeof downTypes)[number][];
  /** Undefined if there is no middle block. */
  readonly midBlockType: (typeof midTypes)[number] | undefined;
  /** In the order in which they run: the lowest level first. */
  readonly upBlockTypes: readonly (typeof upTypes)[number][];
  /** The number of resnets per down block; up blocks have one more. */
  readonly layersPerBlock: readonly number[];
  readonly transformerLayers: TransformerLayers;
  /** The number of heads per attention. */
  readonly numAttentionHeads: readonly number[];
  /** Whether the first attention of a transformer block is a cross-attention too; in the middle block it never is. */
  readonly onlyCrossAttention: readonly boolean[];
  /** Channels of the tokens of an encoded prompt. */
  readonly crossAttentionDim: number;
  /** Whether the transformers' projections are stored as matrices, not as 1x1 convolutions. */
  readonly useLinearProjection: boolean;
  /** What is added to the time embedding, as in Stable Diffusion XL (`text_time`); undefined if nothing is. */
  readonly addedEmbedding: AddedEmbedding | undefined;
}

/** The number of transformer blocks after each resnet of a block with cross-attention; a block without it has none. */
interface TransformerLayers {
  /** In the order of `downBlockTypes`. */
  readonly down: readonly (readonly number[])[];
  /** Of the middle block, which has one transformer or none. */
  readonly mid: number;
  /** In the order of `upBlockTypes`. */
  readonly up: readonly (readonly number[])[];
}

/** An embedding of a prompt and of the image's size, which is added to the time embedding. */
export interface AddedEmbedding {
  /** Length of the sinusoids of each of the six numbers that describe the size (`addition_time_embed_dim`). */
  readonly sizeDim: number;
  /** Length of the vector that encodes the prompt as a whole. */
  readonly pooledDim: number;
}

/** The numbers that describe the size: height, width, top, left, target height and target width. */
export const SIZE_NUMBERS = 6;

/** One number for all levels, or one per level. */
const perLevel = z.union([count, z.array(count)]);

/** One number per level, or one per resnet of a level. */
const perResnet = z.union([layerCount, z.array(z.union([layerCount, z.array(z.int().min(0).max(1000))]))]);

/**
 * Options that are off in Stable Diffusion: the value, next to null, that means off, and a description of the
 * networks that have them on. The first option that is on is reported.
 */
const off: Readonly<Record<string, readonly [value: unknown, meaning: string]>> = {
  encoder_hid_dim_type: [null, 'the prompt is encoded as for Kandinsky or IF'],
  encoder_hid_dim: [null, 'the prompt is encoded as for Kandinsky or IF'],
  class_embed_type: [null, 'the network takes a class or an image in addition to the text'],
  num_class_embeds: [
    null,
    'the network takes a class or a noise level in addition to the text, as upscalers do',
  ],
  class_embeddings_concat: [false, 'the network takes a class in addition to the text'],
  dual_cross_attention: [false, 'every attention sees two conditions, as in Versatile Diffusion'],
  attention_type: ['default', 'the network takes boxes in addition to the text, as GLIGEN does'],
  time_cond_proj_dim: [null, 'the network was distilled and takes the guidance as an input'],
  timestep_post_act: [null, 'the time embedding has another activation'],
  time_embedding_act_fn: [null, 'the time embedding has another activation'],
  time_embedding_type: ['positional', 'the time embedding is of another kind'],
  cross_attention_norm: [null, 'keys and values are normalised'],
  conv_in_kernel: [3, 'the first convolution has another kernel'],
  conv_out_kernel: [3, 'the last convolution has another kernel'],
  resnet_skip_time_act: [false, 'the time embedding enters without an activation'],
  resnet_out_scale_factor: [1, 'the residual sums are scaled'],
};

const keys = {
  ...unetKeys,
  ...Object.fromEntries(Object.keys(off).map((key) => [key, z.unknown().optional()])),
  time_embedding_type: z.string().default('positional'),
  in_channels: count.default(4),
  out_channels: count.default(4),
  down_block_types: z
    .array(z.string())
    .default(['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D']),
  mid_block_type: z.string().nullable().default('UNetMidBlock2DCrossAttn'),
  up_block_types: z
    .array(z.string())
    .default(['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D']),
  block_out_channels: z.array(count).min(1).max(32).default([320, 640, 1280, 1280]),
  layers_per_block: z.union([layerCount, z.array(layerCount)]).default(2),
  transformer_layers_per_block: perResnet.default(1),
  reverse_transformer_layers_per_block: perResnet.nullish(),
  addition_embed_type: z.string().nullish(),
  addition_time_embed_dim: count.nullish(),
  projection_class_embeddings_input_dim: count.nullish(),
  cross_attention_dim: perLevel.default(1280),
  attention_head_dim: perLevel.default(8),
  num_attention_heads: perLevel.nullish(),
  only_cross_attention: z.union([z.boolean(), z.array(z.boolean())]).default(false),
  use_linear_projection: z.boolean().nullish(),
  // Ignored: scores and softmax are always f32.
  upcast_attention: z.boolean().nullish(),
  // Ignored: these matter only for blocks and options that are refused.
  mid_block_only_cross_attention: z.boolean().nullish(),
  addition_embed_type_num_heads: count.nullish(),
};

/** Reads a UNet2DConditionModel's `config.json`. Throws `ModelError` with the file, the key and the expected value. */
export const readUNet2DConditionConfig = jsonReader(parseUNet2DConditionConfig);

/** Returns one entry per level. */
function spread<T>(refuse: Refuse, key: string, value: T | readonly T[], levels: number): readonly T[] {
  if (!Array.isArray(value)) return Array.from({ length: levels }, () => value as T);
  if (value.length !== levels)
    throw refuse(`${key}: expected ${levels} entries as in block_out_channels, got ${value.length}`);
  return value;
}

type Keys = z.output<z.ZodObject<typeof keys>>;

/** Returns the numbers of transformer blocks; `layers` are the resnets of each down block. */
function transformerLayersOf(
  refuse: Refuse,
  got: Keys,
  layers: readonly number[],
  types: { readonly down: readonly string[]; readonly up: readonly string[] },
): TransformerLayers {
  const levels = layers.length;
  const given = got.transformer_layers_per_block;
  const reversed = got.reverse_transformer_layers_per_block ?? undefined;
  const nested = Array.isArray(given) && given.some((entry) => Array.isArray(entry));
  if (nested && reversed === undefined)
    throw refuse(
      'transformer_layers_per_block has a list per block, so reverse_transformer_layers_per_block must have one for the up blocks',
    );
  const perBlock = (key: string, value: Keys['transformer_layers_per_block']) =>
    spread<number | number[]>(refuse, key, value as number | (number | number[])[], levels);
  const expand = (
    key: string,
    entry: number | number[],
    resnets: number,
    type: string,
  ): readonly number[] => {
    if (!type.includes('CrossAttn')) return [];
    const counts = Array.isArray(entry) ? entry.slice(0, resnets) : Array<number>(resnets).fill(entry);
    if (counts.length < resnets || counts.includes(0))
      throw refuse(
        `${key}: expected ${resnets} numbers from 1 on for the resnets of a block ${type}, got ${quote(entry)}`,
      );
    return counts;
  };
  const key = 'transformer_layers_per_block';
  const down = perBlock(key, given);
  const up = reversed === undefined ? [...down].reverse() : perBlock(`reverse_${key}`, reversed);
  return {
    down: types.down.map((type, i) => expand(key, down[i]!, layers[i]!, type)),
    mid:
      got.mid_block_type === 'UNetMidBlock2DCrossAttn'
        ? expand(key, down.at(-1)!, 1, got.mid_block_type)[0]!
        : 0,
    up: types.up.map((type, i) => expand(`reverse_${key}`, up[i]!, layers[levels - 1 - i]! + 1, type)),
  };
}

/** Returns what is added to the time embedding. @throws ModelError if it is not what Stable Diffusion XL adds. */
function addedEmbeddingOf(refuse: Refuse, got: Keys): AddedEmbedding | undefined {
  const {
    addition_embed_type: type,
    addition_time_embed_dim: sizeDim,
    projection_class_embeddings_input_dim: inputDim,
  } = got;
  if (type == null) {
    for (const [key, value] of Object.entries({
      addition_time_embed_dim: sizeDim,
      projection_class_embeddings_input_dim: inputDim,
    }))
      if (value != null) throw refuse(`${key} ${value} is not supported: the network takes more than a text`);
    return undefined;
  }
  if (type !== 'text_time')
    throw refuse(
      `addition_embed_type: expected text_time, as in Stable Diffusion XL, got ${quote(type)}, with which the network takes more than a text and a size, as Kandinsky and IF do`,
    );
  if (sizeDim == null || inputDim == null)
    throw refuse(
      'addition_embed_type text_time needs addition_time_embed_dim and projection_class_embeddings_input_dim',
    );
  if (sizeDim % 2 !== 0 || !(got.freq_shift < sizeDim / 2))
    throw refuse(
      `addition_time_embed_dim ${sizeDim} with freq_shift ${got.freq_shift} gives no sinusoids of the size`,
    );
  const pooledDim = inputDim - SIZE_NUMBERS * sizeDim;
  if (pooledDim < 1)
    throw refuse(
      `projection_class_embeddings_input_dim: expected more than ${SIZE_NUMBERS} times addition_time_embed_dim, ${SIZE_NUMBERS * sizeDim}, got ${inputDim}`,
    );
  return { sizeDim, pooledDim };
}

/** Returns the configuration of a parsed `config.json`; `file` is its name in messages. */
export function parseUNet2DConditionConfig(config: unknown, file: string): UNet2DConditionConfig {
  const reading = readKeys(config, file, 'UNet2DConditionModel', keys);
  const { got, refuse, choose } = reading;
  for (const [key, [value, meaning]] of Object.entries(off)) {
    const given = (config as Record<string, unknown>)[key] ?? value;
    if (given !== value) throw refuse(`${key} ${quote(given)} is not supported: ${meaning}`);
  }
  const down = blockTypes(choose, 'down_block_types', got.down_block_types, downTypes);
  const up = blockTypes(choose, 'up_block_types', got.up_block_types, upTypes);
  const mid =
    got.mid_block_type === null ? undefined : choose('mid_block_type', got.mid_block_type, midTypes);
  const shared = unetConfig(reading);
  const channels = shared.blockOutChannels;
  const levels = channels.length;
  if (shared.outChannels < shared.inChannels)
    throw refuse(
      `out_channels ${shared.outChannels} is less than in_channels ${shared.inChannels}: the network takes more than the noised latent, as for inpainting, depth or upscaling`,
    );

  // diffusers' key attention_head_dim has always held the number of heads.
  const headsKey = got.num_attention_heads == null ? 'attention_head_dim' : 'num_attention_heads';
  const heads = spread(refuse, headsKey, got.num_attention_heads ?? got.attention_head_dim, levels);
  const attends = (i: number): boolean =>
    down[i] === 'CrossAttnDownBlock2D' ||
    up[levels - 1 - i] === 'CrossAttnUpBlock2D' ||
    (mid === 'UNetMidBlock2DCrossAttn' && i === levels - 1);
  if (!channels.some((_, i) => attends(i)))
    throw refuse('no block has cross attention, so that no prompt would make a difference');
  for (const [i, width] of channels.entries())
    if (attends(i) && heads[i]! > width)
      throw refuse(`${headsKey} ${heads[i]} is the number of heads, and more than the ${width} channels`);
  const dims = spread(refuse, 'cross_attention_dim', got.cross_attention_dim, levels);
  const other = dims.find((dim) => dim !== dims[0]);
  if (other !== undefined)
    throw refuse(
      `cross_attention_dim: expected one number, as a prompt has one encoding, got ${dims[0]} and ${other}`,
    );
  const layersPerBlock = spread(refuse, 'layers_per_block', got.layers_per_block, levels);

  return {
    ...shared,
    timeEmbeddingType: 'positional',
    downBlockTypes: down,
    midBlockType: mid,
    upBlockTypes: up,
    layersPerBlock,
    transformerLayers: transformerLayersOf(refuse, got, layersPerBlock, { down, up }),
    numAttentionHeads: heads,
    onlyCrossAttention: spread(refuse, 'only_cross_attention', got.only_cross_attention, levels),
    crossAttentionDim: dims[0]!,
    useLinearProjection: got.use_linear_projection ?? false,
    addedEmbedding: addedEmbeddingOf(refuse, got),
  };
}
