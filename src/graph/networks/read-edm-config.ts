// Reads and checks the configuration of EDM's preconditioned UNets (Karras et al. 2022): the arguments of the constructors of
// EDMPrecond and of SongUNet or DhariwalUNet, by their names and with their defaults. Everything that is not supported is
// refused by name.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { checked, jsonReader, quote } from '../files/json.ts';
import { edmBlocks } from './edm-blocks.ts';
import { type EdmConfig, normGroups } from './edm-config.ts';
import { count, layerCount, type Reading, type Refuse, readKeys } from './unet-keys.ts';

const infinite = z.literal('Infinity').transform(() => Number.POSITIVE_INFINITY);

const precond = {
  img_resolution: count,
  img_channels: count,
  heads: z.int().min(2).max(1_000_000).nullish(),
  label_dim: z.int().min(0).max(1_000_000).default(0),
  use_fp16: z.boolean().default(false),
  sigma_min: z.number().min(0).default(0),
  sigma_max: z.union([z.number().positive(), infinite]).nullable().default(null),
  sigma_data: z.number().positive().default(0.5),
  model_type: z.string().default('DhariwalUNet'),
  id2label: z.unknown().optional(),
};
const shared = {
  ...precond,
  augment_dim: z.int().min(0).max(1_000_000).default(0),
  channel_mult_emb: layerCount.default(4),
  dropout: z.number().min(0).max(1).default(0.1),
  label_dropout: z.number().min(0).max(1).default(0),
};
const resolutions = z.array(count).max(32);
const multiples = z.array(layerCount).min(1).max(16);
const song = {
  ...shared,
  model_channels: count.default(128),
  channel_mult: multiples.default([1, 2, 2, 2]),
  num_blocks: layerCount.default(4),
  attn_resolutions: resolutions.default([16]),
  embedding_type: z.string().default('positional'),
  channel_mult_noise: layerCount.default(1),
  encoder_type: z.string().default('standard'),
  decoder_type: z.string().default('standard'),
  resample_filter: z.array(z.number()).default([1, 1]),
};
const dhariwal = {
  ...shared,
  model_channels: count.default(192),
  channel_mult: multiples.default([1, 2, 3, 4]),
  num_blocks: layerCount.default(3),
  attn_resolutions: resolutions.default([32, 16, 8]),
};

/** Reads an EDM network's `config.json`. Throws `ModelError` with the file, the key and the expected value. */
export const readEdmConfig = jsonReader(parseEdmConfig);

/** Returns the configuration of a parsed `config.json`; `file` is its name in messages. */
export function parseEdmConfig(config: unknown, file: string): EdmConfig {
  const { model_type: type } = checked(z.object({ model_type: precond.model_type }), config, file);
  if (type !== 'SongUNet' && type !== 'DhariwalUNet')
    throw new ModelError(`${file}: model_type: expected SongUNet or DhariwalUNet, got ${quote(type)}`);
  if (type === 'SongUNet') {
    const reading = readKeys(config, file, 'EDMPrecond', song);
    const { got, refuse, choose } = reading;
    choose('embedding_type', got.embedding_type, ['positional']);
    choose('encoder_type', got.encoder_type, ['standard']);
    choose('decoder_type', got.decoder_type, ['standard']);
    if (got.resample_filter.join() !== '1,1')
      throw refuse(`resample_filter: expected [1, 1], got [${got.resample_filter.join(', ')}]`);
    return edmConfig(reading, 'SongUNet', got.channel_mult_noise);
  }
  return edmConfig(readKeys(config, file, 'EDMPrecond', dhariwal), 'DhariwalUNet', 1);
}

function edmConfig(
  { got, refuse }: Reading<z.output<z.ZodObject<typeof dhariwal>>>,
  modelType: EdmConfig['modelType'],
  channelMultNoise: number,
): EdmConfig {
  const read: EdmConfig = {
    modelType,
    imgResolution: got.img_resolution,
    imgChannels: got.img_channels,
    heads: got.heads ?? undefined,
    labelDim: got.label_dim,
    labelDropout: got.label_dropout,
    sigmaData: got.sigma_data,
    sigmaMin: got.sigma_min,
    sigmaMax: got.sigma_max ?? Number.POSITIVE_INFINITY,
    augmentDim: got.augment_dim,
    modelChannels: got.model_channels,
    channelMult: got.channel_mult,
    channelMultEmb: got.channel_mult_emb,
    channelMultNoise,
    numBlocks: got.num_blocks,
    attnResolutions: got.attn_resolutions,
  };
  checkSizes(read, refuse);
  return read;
}

/** Throws if the sizes do not fit: sides that cannot be halved, or channels that groups, heads or sinusoids do not divide. */
function checkSizes(config: EdmConfig, refuse: Refuse): void {
  const { imgResolution, channelMult, modelChannels, channelMultNoise, modelType } = config;
  const multiple = 2 ** (channelMult.length - 1);
  if (imgResolution % multiple !== 0)
    throw refuse(
      `img_resolution ${imgResolution} is not a multiple of ${multiple}, which ${channelMult.length} levels need`,
    );
  if (config.heads !== undefined && config.labelDim > 0)
    throw refuse(`label_dim: expected 0 for a network with one head per class, got ${config.labelDim}`);
  const sinusoids = modelChannels * channelMultNoise;
  if (sinusoids % 2 !== 0 || sinusoids < (modelType === 'SongUNet' ? 4 : 2))
    throw refuse(`model_channels ${modelChannels} gives no embedding of the noise level`);
  const { encoder, decoder } = edmBlocks(config);
  for (const { name, from, to, heads } of [...encoder, ...decoder])
    if (heads !== undefined)
      for (const [channels, parts] of [
        [from, normGroups(from)],
        [to, normGroups(to)],
        [to, Math.max(heads, 1)],
      ] as const)
        if (parts === 0 || channels % parts !== 0)
          throw refuse(
            `model_channels ${modelChannels} with channel_mult [${channelMult.join(', ')}] gives ${name} ${channels} channels, which do not split into ${parts || 'any'} groups`,
          );
}
