// The configuration of diffusers' UNet2DModel, checked and with diffusers' defaults filled in. Everything that is not
// supported is refused by name, before any tensor is read.

import { z } from 'zod';
import { jsonReader } from '../files/json.ts';
import type { UNetConfig } from './unet-config.ts';
import { blockTypes, count, layerCount, readKeys, unetConfig, unetKeys } from './unet-keys.ts';

const downTypes = ['DownBlock2D', 'AttnDownBlock2D', 'ResnetDownsampleBlock2D'] as const;
const upTypes = ['UpBlock2D', 'AttnUpBlock2D', 'ResnetUpsampleBlock2D'] as const;
export type DownBlockType = (typeof downTypes)[number];
export type UpBlockType = (typeof upTypes)[number];
/** What is added to the time embedding: nothing, a row of a table, an MLP of the class number's sinusoids, or a vector. */
type ClassEmbedding = 'none' | 'table' | 'timestep' | 'identity';

/** The configuration of a UNet2DModel, by diffusers' names in camel case. The time embedding and the output always use silu. */
export interface UNet2DConfig extends UNetConfig {
  /** `fourier`: sinusoids of log t with stored frequencies; the output is divided by t, and `flipSinToCos` is ignored. */
  readonly timeEmbeddingType: 'positional' | 'fourier';
  readonly downBlockTypes: readonly DownBlockType[];
  readonly midBlock: boolean;
  readonly upBlockTypes: readonly UpBlockType[];
  /** The number of resnets per down block; up blocks have one more. */
  readonly layersPerBlock: number;
  /** How AttnDownBlock2D halves the size; the other block types do not have the choice. */
  readonly downsampleType: 'conv' | 'resnet';
  readonly upsampleType: 'conv' | 'resnet';
  /** Channels per head; undefined for one head with all channels of the block. */
  readonly attentionHeadDim: number | undefined;
  /** Groups of the norm in the middle block's attention; undefined if that attention has no norm. */
  readonly midAttentionGroups: number | undefined;
  /** Whether the middle block has attention. */
  readonly addAttention: boolean;
  readonly classEmbedding: ClassEmbedding;
  /** Rows of the class table; undefined for other class embeddings. */
  readonly numClassEmbeds: number | undefined;
}

const keys = {
  ...unetKeys,
  in_channels: count.default(3),
  out_channels: count.default(3),
  down_block_types: z
    .array(z.string())
    .default(['DownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D']),
  mid_block_type: z.string().nullable().default('UNetMidBlock2D'),
  up_block_types: z
    .array(z.string())
    .default(['AttnUpBlock2D', 'AttnUpBlock2D', 'AttnUpBlock2D', 'UpBlock2D']),
  block_out_channels: z.array(count).min(1).max(32).default([224, 448, 672, 896]),
  layers_per_block: layerCount.default(2),
  downsample_type: z.string().nullable().default('conv'),
  upsample_type: z.string().nullable().default('conv'),
  attention_head_dim: count.nullable().default(8),
  attn_norm_num_groups: count.nullish(),
  add_attention: z.boolean().default(true),
  class_embed_type: z.string().nullish(),
  num_class_embeds: count.nullish(),
  num_train_timesteps: count.nullish(),
};

/** Reads a UNet2DModel's `config.json`. Throws `ModelError` with the file, the key and the expected value. */
export const readUNet2DConfig = jsonReader(parseUNet2DConfig);

/** Returns the configuration of a parsed `config.json`; `file` is its name in messages. */
export function parseUNet2DConfig(config: unknown, file: string): UNet2DConfig {
  const reading = readKeys(config, file, 'UNet2DModel', keys);
  const { got, refuse, choose } = reading;
  const down = blockTypes(choose, 'down_block_types', got.down_block_types, downTypes);
  const up = blockTypes(choose, 'up_block_types', got.up_block_types, upTypes);
  if (got.mid_block_type !== null) choose('mid_block_type', got.mid_block_type, ['UNetMidBlock2D']);
  const timeEmbeddingType = choose('time_embedding_type', got.time_embedding_type, ['positional', 'fourier']);
  const shared = unetConfig(reading);
  const channels = shared.blockOutChannels;
  const levels = channels.length;

  const byDefault = shared.resnetTimeScaleShift === 'default' ? shared.normNumGroups : undefined;
  const midGroups = got.attn_norm_num_groups ?? byDefault;
  const midAttends = got.mid_block_type !== null && got.add_attention;
  if (midAttends && midGroups !== undefined && channels.at(-1)! % midGroups !== 0)
    throw refuse(`attn_norm_num_groups ${midGroups} does not divide block_out_channels ${channels.at(-1)}`);

  const headDim = got.attention_head_dim ?? undefined;
  const attends = (i: number): boolean =>
    down[i] === 'AttnDownBlock2D' ||
    up[levels - 1 - i] === 'AttnUpBlock2D' ||
    (midAttends && i === levels - 1);
  for (const [i, width] of channels.entries())
    if (headDim !== undefined && headDim > width && attends(i))
      throw refuse(
        `attention_head_dim ${headDim} is more than the ${width} channels of a block with attention`,
      );

  const multiple = 2 ** (levels - 1);
  for (const side of shared.sampleSize ?? [])
    if (side % multiple !== 0)
      throw refuse(`sample_size ${side} is not a multiple of ${multiple}, which ${levels} levels need`);

  const classType = got.class_embed_type ?? null;
  const classes = classType === null ? null : choose('class_embed_type', classType, ['timestep', 'identity']);
  const table = classes === null && got.num_class_embeds != null;
  return {
    ...shared,
    timeEmbeddingType,
    downBlockTypes: down,
    midBlock: got.mid_block_type !== null,
    upBlockTypes: up,
    layersPerBlock: got.layers_per_block,
    downsampleType: choose('downsample_type', got.downsample_type ?? 'conv', ['conv', 'resnet']),
    upsampleType: choose('upsample_type', got.upsample_type ?? 'conv', ['conv', 'resnet']),
    attentionHeadDim: headDim,
    midAttentionGroups: midGroups,
    addAttention: got.add_attention,
    classEmbedding: classes ?? (table ? 'table' : 'none'),
    numClassEmbeds: table ? got.num_class_embeds! : undefined,
  };
}

/**
 * Returns the heads of an attention over `channels`. If the head dimension does not divide the channels, diffusers projects
 * to fewer channels, heads · headDim, and back.
 */
export function attentionHeads(
  config: UNet2DConfig,
  channels: number,
): { readonly heads: number; readonly headDim: number } {
  const headDim = config.attentionHeadDim ?? channels;
  return { heads: Math.floor(channels / headDim), headDim };
}
