// The configuration of diffusers' UNet2DModel, checked: what is understood is typed here with diffusers'
// defaults filled in, everything else is refused by name before a single tensor is read.
//
// Unknown values are always refused. Unknown keys are refused too, unless null or false (how later versions
// write an option that is off), or underscored (diffusers' notes to itself), or left by its EMA training helper.

import { z } from 'zod';
import { ModelError } from '../../kernels/errors.ts';
import { checked, quote, readJson } from '../files/json.ts';

export type DownBlockType = 'DownBlock2D' | 'AttnDownBlock2D' | 'ResnetDownsampleBlock2D';
export type UpBlockType = 'UpBlock2D' | 'AttnUpBlock2D' | 'ResnetUpsampleBlock2D';
/** `gelu` is the exact one, x Phi(x). */
export type Activation = 'silu' | 'mish' | 'gelu' | 'relu';
/** What joins the time embedding: nothing, a row of a table, an MLP of the class number's sinusoids, a vector as it is. */
export type ClassEmbedding = 'none' | 'table' | 'timestep' | 'identity';

/** A UNet2DModel; the names are diffusers', in camel case. */
export interface UNet2DConfig {
  /** Side lengths the network was made for; undefined when the file does not say. */
  readonly sampleSize: readonly [height: number, width: number] | undefined;
  readonly inChannels: number;
  readonly outChannels: number;
  /** The input is mapped x -> 2x - 1 first. */
  readonly centerInputSample: boolean;
  /** `fourier`: sinusoids of log t by stored frequencies, and the output is divided by t. */
  readonly timeEmbeddingType: 'positional' | 'fourier';
  /** Width of the embedding that every resnet sees. */
  readonly timeEmbeddingDim: number;
  readonly freqShift: number;
  /** [cos, sin] instead of [sin, cos]; positional only. */
  readonly flipSinToCos: boolean;
  readonly downBlockTypes: readonly DownBlockType[];
  readonly midBlock: boolean;
  readonly upBlockTypes: readonly UpBlockType[];
  readonly blockOutChannels: readonly number[];
  /** Resnets of a down block; up blocks have one more. */
  readonly layersPerBlock: number;
  /** The middle block divides its residual sums by this. */
  readonly midBlockScaleFactor: number;
  /** Of the strided convolutions: 1, or 0 with one zero row and column added at bottom and right. */
  readonly downsamplePadding: 0 | 1;
  /** How AttnDownBlock2D shrinks; the other block types have only their own way. */
  readonly downsampleType: 'conv' | 'resnet';
  readonly upsampleType: 'conv' | 'resnet';
  /** Of the resnets; the time embedding and the output always use silu. */
  readonly actFn: Activation;
  /** Channels of a head, or undefined for one head of all the block's channels. */
  readonly attentionHeadDim: number | undefined;
  readonly normNumGroups: number;
  /** Groups of the norm in the middle block's attention; undefined: that attention has no norm. */
  readonly midAttentionGroups: number | undefined;
  readonly normEps: number;
  /** How the time embedding enters a resnet: added before the second norm, or as scale and shift after it. */
  readonly resnetTimeScaleShift: 'default' | 'scale_shift';
  /** The middle block has attention. */
  readonly addAttention: boolean;
  readonly classEmbedding: ClassEmbedding;
  /** Rows of the class table; undefined for other kinds. */
  readonly numClassEmbeds: number | undefined;
}

const count = z.int().min(1).max(1_000_000);
const keys = {
  sample_size: z.union([count, z.tuple([count, count])]).nullish(),
  in_channels: count.default(3),
  out_channels: count.default(3),
  center_input_sample: z.boolean().default(false),
  time_embedding_type: z.string().default('positional'),
  time_embedding_dim: count.nullish(),
  freq_shift: z.number().default(0),
  flip_sin_to_cos: z.boolean().default(true),
  down_block_types: z
    .array(z.string())
    .default(['DownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D']),
  mid_block_type: z.string().nullable().default('UNetMidBlock2D'),
  up_block_types: z
    .array(z.string())
    .default(['AttnUpBlock2D', 'AttnUpBlock2D', 'AttnUpBlock2D', 'UpBlock2D']),
  block_out_channels: z.array(count).min(1).max(32).default([224, 448, 672, 896]),
  layers_per_block: z.int().min(1).max(1000).default(2),
  mid_block_scale_factor: z.number().positive().default(1),
  downsample_padding: z.int().default(1),
  downsample_type: z.string().nullable().default('conv'),
  upsample_type: z.string().nullable().default('conv'),
  dropout: z.number().min(0).max(1).default(0),
  act_fn: z.string().default('silu'),
  attention_head_dim: count.nullable().default(8),
  norm_num_groups: count.nullable().default(32),
  attn_norm_num_groups: count.nullish(),
  norm_eps: z.number().min(0).default(1e-5),
  resnet_time_scale_shift: z.string().default('default'),
  add_attention: z.boolean().default(true),
  class_embed_type: z.string().nullish(),
  num_class_embeds: count.nullish(),
  num_train_timesteps: count.nullish(),
};
const schema = z.object(keys);

/** What diffusers' EMAModel adds to the config of the model that it saves. */
const emaKeys: ReadonlySet<string> = new Set([
  'decay',
  'min_decay',
  'optimization_step',
  'update_after_step',
  'use_ema_warmup',
  'inv_gamma',
  'power',
]);

/** Reads a UNet2DModel's `config.json`; throws `ModelError` naming the file, the key and what was wanted. */
export async function readUNet2DConfig(file: string): Promise<UNet2DConfig> {
  return parseUNet2DConfig(await readJson(file), file);
}

/** The configuration of a parsed `config.json`; `file` is for messages. */
export function parseUNet2DConfig(config: unknown, file: string): UNet2DConfig {
  const got = checked(schema, config, file);
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  for (const [key, value] of Object.entries(config as object)) {
    if (key === '_class_name' && value !== 'UNet2DModel')
      throw refuse(`_class_name is ${quote(value)}, wanted UNet2DModel`);
    if (
      !Object.hasOwn(keys, key) &&
      !key.startsWith('_') &&
      !emaKeys.has(key) &&
      value !== null &&
      value !== false
    )
      throw refuse(`the key ${quote(key)} with value ${quote(value)} is unknown to this version`);
  }
  const choose = <T extends string>(key: string, value: string, choices: readonly T[]): T => {
    const chosen = choices.find((choice) => choice === value);
    if (chosen === undefined)
      throw refuse(`${key} ${quote(value)} is not supported, wanted ${choices.join(' or ')}`);
    return chosen;
  };
  // before version 0.1 of diffusers the block types began with UNetRes
  const block = (name: string): string => name.replace(/^UNetRes/, '');

  const channels = got.block_out_channels;
  const levels = channels.length;
  const down = got.down_block_types.map((name) => choose('down_block_types', block(name), downTypes));
  const up = got.up_block_types.map((name) => choose('up_block_types', block(name), upTypes));
  if (down.length !== levels || up.length !== levels)
    throw refuse(
      `block_out_channels has ${levels} entries, down_block_types ${down.length}, up_block_types ${up.length}, wanted the same`,
    );
  if (got.mid_block_type !== null) choose('mid_block_type', got.mid_block_type, ['UNetMidBlock2D']);
  const padding = got.downsample_padding;
  if (padding !== 0 && padding !== 1)
    throw refuse(`downsample_padding ${padding} is not supported, wanted 0 or 1`);

  const groups = got.norm_num_groups;
  if (groups === null) throw refuse('norm_num_groups null is not supported, wanted a number');
  for (const width of channels)
    if (width % groups !== 0)
      throw refuse(`norm_num_groups ${groups} does not divide block_out_channels ${width}`);
  const shift = choose('resnet_time_scale_shift', got.resnet_time_scale_shift, ['default', 'scale_shift']);
  const midGroups = got.attn_norm_num_groups ?? (shift === 'default' ? groups : undefined);
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

  const timeType = choose('time_embedding_type', got.time_embedding_type, ['positional', 'fourier']);
  if (timeType === 'positional' && (channels[0]! % 2 !== 0 || !(got.freq_shift < channels[0]! / 2)))
    throw refuse(
      `block_out_channels ${channels[0]} with freq_shift ${got.freq_shift} gives no positional time embedding`,
    );

  const size =
    typeof got.sample_size === 'number' ? ([got.sample_size, got.sample_size] as const) : got.sample_size;
  const multiple = 2 ** (levels - 1);
  for (const side of size ?? [])
    if (side % multiple !== 0)
      throw refuse(`sample_size ${side} is not a multiple of ${multiple}, which ${levels} levels need`);

  const classType = got.class_embed_type ?? null;
  const classes = classType === null ? null : choose('class_embed_type', classType, ['timestep', 'identity']);
  const table = classes === null && got.num_class_embeds != null;
  return {
    sampleSize: size ?? undefined,
    inChannels: got.in_channels,
    outChannels: got.out_channels,
    centerInputSample: got.center_input_sample,
    timeEmbeddingType: timeType,
    timeEmbeddingDim: got.time_embedding_dim ?? 4 * channels[0]!,
    freqShift: got.freq_shift,
    flipSinToCos: got.flip_sin_to_cos,
    downBlockTypes: down,
    midBlock: got.mid_block_type !== null,
    upBlockTypes: up,
    blockOutChannels: channels,
    layersPerBlock: got.layers_per_block,
    midBlockScaleFactor: got.mid_block_scale_factor,
    downsamplePadding: padding,
    downsampleType: choose('downsample_type', got.downsample_type ?? 'conv', ['conv', 'resnet']),
    upsampleType: choose('upsample_type', got.upsample_type ?? 'conv', ['conv', 'resnet']),
    actFn: activation(got.act_fn, choose),
    attentionHeadDim: headDim,
    normNumGroups: groups,
    midAttentionGroups: midGroups,
    normEps: got.norm_eps,
    resnetTimeScaleShift: shift,
    addAttention: got.add_attention,
    classEmbedding: classes ?? (table ? 'table' : 'none'),
    numClassEmbeds: table ? got.num_class_embeds! : undefined,
  };
}

const downTypes: readonly DownBlockType[] = ['DownBlock2D', 'AttnDownBlock2D', 'ResnetDownsampleBlock2D'];
const upTypes: readonly UpBlockType[] = ['UpBlock2D', 'AttnUpBlock2D', 'ResnetUpsampleBlock2D'];

function activation(
  name: string,
  choose: <T extends string>(key: string, value: string, choices: readonly T[]) => T,
): Activation {
  const chosen = choose('act_fn', name.toLowerCase(), ['silu', 'swish', 'mish', 'gelu', 'relu']);
  return chosen === 'swish' ? 'silu' : chosen;
}

/**
 * Heads of an attention over `channels`: with a head dimension that does not divide them, diffusers projects to
 * the `inner` = heads * headDim channels that fit, and back.
 */
export function attentionHeads(
  config: UNet2DConfig,
  channels: number,
): { readonly heads: number; readonly headDim: number; readonly inner: number } {
  const headDim = config.attentionHeadDim ?? channels;
  const heads = Math.floor(channels / headDim);
  return { heads, headDim, inner: heads * headDim };
}
