// Reading the configuration of a UNet of diffusers: the keys that both kinds share, and the checks.
//
// Unknown values are always refused. Unknown keys are refused too, unless null or false (how later versions
// write an option that is off), or underscored (diffusers' notes to itself), or left by its EMA training helper.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { checked, quote } from '../files/json.ts';
import type { UNetConfig } from './unet-config.ts';

export const count = z.int().min(1).max(1_000_000);
export const layerCount = z.int().min(1).max(1000);

/** The keys of `UNetConfig` whose defaults are the same everywhere, and those of both kinds that change nothing here. */
export const unetKeys = {
  sample_size: z.union([count, z.tuple([count, count])]).nullish(),
  center_input_sample: z.boolean().default(false),
  time_embedding_type: z.string().default('positional'),
  time_embedding_dim: count.nullish(),
  freq_shift: z.number().default(0),
  flip_sin_to_cos: z.boolean().default(true),
  mid_block_scale_factor: z.number().positive().default(1),
  downsample_padding: z.int().default(1),
  dropout: z.number().min(0).max(1).default(0),
  act_fn: z.string().default('silu'),
  norm_num_groups: count.nullable().default(32),
  norm_eps: z.number().min(0).default(1e-5),
  resnet_time_scale_shift: z.string().default('default'),
};

/** The keys that have other defaults in each kind. */
interface OwnKeys {
  readonly in_channels: number;
  readonly out_channels: number;
  readonly down_block_types: readonly string[];
  readonly up_block_types: readonly string[];
  readonly block_out_channels: readonly number[];
}

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

/** Makes the error of a configuration that is not supported. */
export type Refuse = (what: string) => ModelError;
/** The choice that a value names. @throws ModelError where there is none. */
export type Choose = <T extends string>(key: string, value: string, choices: readonly T[]) => T;

export interface Reading<Keys> {
  readonly got: Keys;
  readonly refuse: Refuse;
  readonly choose: Choose;
}

/** A parsed `config.json` by its keys. @throws ModelError for another class, an unknown key, or a value of a wrong type. */
export function readKeys<Keys extends z.ZodRawShape>(
  config: unknown,
  file: string,
  className: string,
  keys: Keys,
): Reading<z.output<z.ZodObject<Keys>>> {
  const got = checked(z.object(keys), config, file);
  const refuse: Refuse = (what) => new ModelError(`${file}: ${what}`);
  for (const [key, value] of Object.entries(config as object)) {
    if (key === '_class_name' && value !== className)
      throw refuse(`_class_name is ${quote(value)}, wanted ${className}`);
    const known = Object.hasOwn(keys, key) || key.startsWith('_') || emaKeys.has(key);
    if (!known && value !== null && value !== false)
      throw refuse(`the key ${quote(key)} with value ${quote(value)} is unknown to this version`);
  }
  const choose: Choose = (key, value, choices) => {
    const chosen = choices.find((choice) => choice === value);
    if (chosen === undefined)
      throw refuse(`${key} ${quote(value)} is not supported, wanted ${choices.join(' or ')}`);
    return chosen;
  };
  return { got, refuse, choose };
}

/** The types of down or up blocks; before version 0.1 of diffusers their names began with UNetRes. */
export const blockTypes = <T extends string>(
  choose: Choose,
  key: string,
  names: readonly string[],
  choices: readonly T[],
): readonly T[] => names.map((name) => choose(key, name.replace(/^UNetRes/, ''), choices));

type SharedKeys = z.output<z.ZodObject<typeof unetKeys>> & OwnKeys;

/** The part of a configuration that all UNets share, with its checks. @throws ModelError */
export function unetConfig({ got, refuse, choose }: Reading<SharedKeys>): UNetConfig {
  const channels = got.block_out_channels;
  const levels = channels.length;
  if (got.down_block_types.length !== levels || got.up_block_types.length !== levels)
    throw refuse(
      `block_out_channels has ${levels} entries, down_block_types ${got.down_block_types.length}, up_block_types ${got.up_block_types.length}, wanted the same`,
    );
  const padding = got.downsample_padding;
  if (padding !== 0 && padding !== 1)
    throw refuse(`downsample_padding ${padding} is not supported, wanted 0 or 1`);
  const groups = got.norm_num_groups;
  if (groups === null) throw refuse('norm_num_groups null is not supported, wanted a number');
  for (const width of channels)
    if (width % groups !== 0)
      throw refuse(`norm_num_groups ${groups} does not divide block_out_channels ${width}`);
  if (
    got.time_embedding_type === 'positional' &&
    (channels[0]! % 2 !== 0 || !(got.freq_shift < channels[0]! / 2))
  )
    throw refuse(
      `block_out_channels ${channels[0]} with freq_shift ${got.freq_shift} gives no positional time embedding`,
    );
  const size =
    typeof got.sample_size === 'number' ? ([got.sample_size, got.sample_size] as const) : got.sample_size;
  const act = choose('act_fn', got.act_fn.toLowerCase(), ['silu', 'swish', 'mish', 'gelu', 'relu']);
  return {
    sampleSize: size ?? undefined,
    inChannels: got.in_channels,
    outChannels: got.out_channels,
    centerInputSample: got.center_input_sample,
    timeEmbeddingDim: got.time_embedding_dim ?? 4 * channels[0]!,
    freqShift: got.freq_shift,
    flipSinToCos: got.flip_sin_to_cos,
    blockOutChannels: channels,
    midBlockScaleFactor: got.mid_block_scale_factor,
    downsamplePadding: padding,
    actFn: act === 'swish' ? 'silu' : act,
    normNumGroups: groups,
    normEps: got.norm_eps,
    resnetTimeScaleShift: choose('resnet_time_scale_shift', got.resnet_time_scale_shift, [
      'default',
      'scale_shift',
    ]),
  };
}
