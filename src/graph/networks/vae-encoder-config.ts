// The configuration of diffusers' AutoencoderKL as far as its encoder goes, checked: what is understood is typed
// here with diffusers' defaults filled in, everything else is refused by name. Keys of the decoder alone are
// passed over.

import { z } from 'zod';
import type { Files } from '../files/files.ts';
import { readJson } from '../files/json.ts';
import type { Activation } from './unet-config.ts';
import { count, layerCount, readKeys } from './unet-keys.ts';

/** The encoder of an AutoencoderKL; the names are diffusers', in camel case. */
export interface VaeEncoderConfig {
  /** Channels of a latent. */
  readonly latentChannels: number;
  readonly blockOutChannels: readonly number[];
  /** Resnets of a down block. */
  readonly layersPerBlock: number;
  readonly normNumGroups: number;
  /** Of the resnets; the output always uses silu. */
  readonly actFn: Activation;
  /** A latent is (mean - shiftFactor) scalingFactor; 0 where the file gives no shift. */
  readonly scalingFactor: number;
  readonly shiftFactor: number;
  /** A 1x1 convolution makes the moments from the encoder's output. */
  readonly useQuantConv: boolean;
  readonly midBlockAddAttention: boolean;
  /** Side lengths of the images the network was made for; undefined when the file does not say. */
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

/** Pixels of an image to a pixel of its latent, in both directions. */
export const vaeDownscale = ({ blockOutChannels }: Pick<VaeEncoderConfig, 'blockOutChannels'>): number =>
  2 ** (blockOutChannels.length - 1);

/** Reads an AutoencoderKL's `config.json`; throws `ModelError` naming the file, the key and what was wanted. */
export async function readVaeEncoderConfig(files: Files, name: string): Promise<VaeEncoderConfig> {
  return parseVaeEncoderConfig(await readJson(files, name), files.describe(name));
}

/** The configuration of a parsed `config.json`; `file` is for messages. */
export function parseVaeEncoderConfig(config: unknown, file: string): VaeEncoderConfig {
  const { got, refuse, choose } = readKeys(config, file, 'AutoencoderKL', keys);
  if (got.in_channels !== 3) throw refuse(`in_channels ${got.in_channels} is not supported, wanted 3`);
  for (const type of got.down_block_types) choose('down_block_types', type, ['DownEncoderBlock2D']);
  const channels = got.block_out_channels;
  if (got.down_block_types.length !== channels.length)
    throw refuse(
      `block_out_channels has ${channels.length} entries, down_block_types ${got.down_block_types.length}, wanted the same`,
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
