// Reads the configuration of diffusers' networks: the keys that UNet2DModel and UNet2DConditionModel share, and the checks.
//
// Unknown values are always refused. Unknown keys are refused too, with three exceptions: the value is null or false, as
// later versions write an option that is off; the key begins with an underscore, as diffusers' own notes do; or diffusers'
// EMA training helper wrote the key.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { className as oneName } from '../files/class-name.ts';
import { checked, quote } from '../files/json.ts';
import type { UNetConfig } from './unet-config.ts';

/** A whole number such as a number of channels. */
export const count = z.int().min(1).max(1_000_000);
export const layerCount = z.int().min(1).max(1000);

/** The keys that both classes have with the same defaults; some of them have no effect here. */
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

/** The keys that both classes have with different defaults. */
interface OwnKeys {
  readonly in_channels: number;
  readonly out_channels: number;
  readonly down_block_types: readonly string[];
  readonly up_block_types: readonly string[];
  readonly block_out_channels: readonly number[];
}

/** The keys that diffusers' EMAModel adds to the configuration of a model. */
const emaKeys: ReadonlySet<string> = new Set([
  'decay',
  'min_decay',
  'optimization_step',
  'update_after_step',
  'use_ema_warmup',
  'inv_gamma',
  'power',
]);

/** Returns the error for a configuration that is not supported. */
export type Refuse = (what: string) => ModelError;
/** Returns the choice that equals the value. @throws ModelError if there is none. */
type Choose = <T extends string>(key: string, value: string, choices: readonly T[]) => T;

export interface Reading<Keys> {
  readonly got: Keys;
  readonly refuse: Refuse;
  readonly choose: Choose;
}

/**
 * Returns the values of a parsed `config.json` by their keys.
 * @throws ModelError if the file is of another class, has an unknown key, or a value of the wrong type.
 */
export function readKeys<Keys extends z.ZodRawShape>(
  config: unknown,
  file: string,
  className: string,
  keys: Keys,
): Reading<z.output<z.ZodObject<Keys>>> {
  const got = checked(z.object(keys), config, file);
  const refuse: Refuse = (what) => new ModelError(`${file}: ${what}`);
  for (const [key, value] of Object.entries(config as object)) {
    if (key === '_class_name' && oneName.safeParse(value).data !== className)
      throw refuse(`_class_name: expected ${className}, got ${quote(value)}`);
    const known = Object.hasOwn(keys, key) || key.startsWith('_') || emaKeys.has(key);
    if (!known && value !== null && value !== false)
      throw refuse(`the key ${quote(key)} with value ${quote(value)} is unknown to this version`);
  }
  const choose: Choose = (key, value, choices) => {
    const chosen = choices.find((choice) => choice === value);
    if (chosen === undefined) throw refuse(`${key}: expected ${choices.join(' or ')}, got ${quote(value)}`);
    return chosen;
  };
  return { got, refuse, choose };
}

/** Returns the types of down or up blocks. Before version 0.1 of diffusers their names began with UNetRes. */
export const blockTypes = <T extends string>(
  choose: Choose,
  key: string,
  names: readonly string[],
  choices: readonly T[],
): readonly T[] => names.map((name) => choose(key, name.replace(/^UNetRes/, ''), choices));

type SharedKeys = z.output<z.ZodObject<typeof unetKeys>> & OwnKeys;

/** Returns the part of a configuration that all UNets share. @throws ModelError if a check fails. */
export function unetConfig({ got, refuse, choose }: Reading<SharedKeys>): UNetConfig {
  const channels = got.block_out_channels;
  const levels = channels.length;
  if (got.down_block_types.length !== levels || got.up_block_types.length !== levels)
    throw refuse(
      `expected block_out_channels, down_block_types and up_block_types of one length, got ${levels}, ${got.down_block_types.length} and ${got.up_block_types.length}`,
    );
  const padding = got.downsample_padding;
  if (padding !== 0 && padding !== 1) throw refuse(`downsample_padding: expected 0 or 1, got ${padding}`);
  const groups = got.norm_num_groups;
  if (groups === null) throw refuse('norm_num_groups: expected a number, got null');
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
