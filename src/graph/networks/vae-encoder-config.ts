// The configuration of the encoder of diffusers' AutoencoderKL, checked and with diffusers' defaults filled in. Everything
// that is not supported is refused by name. Keys that concern only the decoder are ignored.

import { z } from 'zod';
import { jsonReader } from '../files/json.ts';
import type { UNetActivation } from './unet-config.ts';
import { count, layerCount, readKeys } from './unet-keys.ts';

/** The configuration of the encoder of an AutoencoderKL, by diffusers' names in camel case. */
export interface VaeEncoderConfig {
  /** The number of channels of a latent. */
  readonly latentChannels: number;
  readonly blockOutChannels: readonly number[];
  /** The number of resnets per down block. */
  readonly layersPerBlock: number;
  readonly normNumGroups: number;
  /** The activation of the resnets; the output always uses silu. */
  readonly actFn: UNetActivation;
  /** A latent is (mean - shiftFactor)·scalingFactor. */
  readonly scalingFactor: number;
  /** 0 if the file has no shift. */
  readonly shiftFactor: number;
  /** Whether a 1x1 convolution computes the moments from the encoder's output. */
  readonly useQuantConv: boolean;
  /** Whether the middle block has attention. */
  readonly midBlockAddAttention: boolean;
  /** Height and width of the images that the network was trained on; undefined if the file does not state them. */
  readonly sampleSize: readonly [height: number, width: number] | undefined;
}

const keys = {
  in_channels: count.default(3),
  out_channels: count.default(3),
  down_block_types: z.array(z.string()).default(['DownEncoderBlock2D']),
  up_block_types: z.array(z.string()).optional(),
  block_out_channels: z.array(count).min(1).max(32).default([64]),
  layers_per_block: layerCount.default(1),
  act_fn: z.string().default('silu'),
  latent_channels: count.default(4),
  norm_num_groups: count.default(32),
  sample_size: z.union([count, z.tuple([count, count])]).nullish(),
  scaling_factor: z.number().positive().default(0.18215),
  shift_factor: z.number().nullish(),
  force_upcast: z.boolean().nullish(),
  use_quant_conv: z.boolean().default(true),
  use_post_quant_conv: z.boolean().default(true),
  mid_block_add_attention: z.boolean().default(true),
};

/** Returns the height of an image per pixel of height of its latent; the same number holds for the width. */
export const vaeDownscale = ({ blockOutChannels }: Pick<VaeEncoderConfig, 'blockOutChannels'>): number =>
  2 ** (blockOutChannels.length - 1);

/** Reads an AutoencoderKL's `config.json`. Throws `ModelError` with the file, the key and the expected value. */
export const readVaeEncoderConfig = jsonReader(parseVaeEncoderConfig);

/** Returns the configuration of a parsed `config.json`; `file` is its name in messages. */
export function parseVaeEncoderConfig(config: unknown, file: string): VaeEncoderConfig {
  const { got, refuse, choose } = readKeys(config, file, 'AutoencoderKL', keys);
  if (got.in_channels !== 3) throw refuse(`in_channels: expected 3, got ${got.in_channels}`);
  for (const type of got.down_block_types) choose('down_block_types', type, ['DownEncoderBlock2D']);
  const channels = got.block_out_channels;
  if (got.down_block_types.length !== channels.length)
    throw refuse(
      `expected block_out_channels and down_block_types of one length, got ${channels.length} and ${got.down_block_types.length}`,
    );
  const groups = got.norm_num_groups;
  const odd = channels.find((width) => width % groups !== 0);
  if (odd !== undefined) throw refuse(`norm_num_groups ${groups} does not divide block_out_channels ${odd}`);
  const actFn = choose('act_fn', got.act_fn.toLowerCase(), ['silu', 'swish', 'mish', 'gelu', 'relu']);
  const size = got.sample_size ?? undefined;
  return {
    latentChannels: got.latent_channels,
    blockOutChannels: channels,
    layersPerBlock: got.layers_per_block,
    normNumGroups: groups,
    actFn: actFn === 'swish' ? 'silu' : actFn,
    scalingFactor: got.scaling_factor,
    shiftFactor: got.shift_factor ?? 0,
    useQuantConv: got.use_quant_conv,
    midBlockAddAttention: got.mid_block_add_attention,
    sampleSize: typeof size === 'number' ? [size, size] : size,
  };
}
