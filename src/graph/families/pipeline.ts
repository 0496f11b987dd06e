// A model folder as diffusers saves a pipeline: what is in it, checked as far as is possible without reading weights.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import type { Files } from '../files/files.ts';
import { checked, quote, readJson } from '../files/json.ts';
import { readClipTextConfig } from '../networks/clip-text-config.ts';
import { type DitConfig, readDitConfig } from '../networks/dit-config.ts';
import {
  readUNet2DConditionConfig,
  type UNet2DConditionConfig,
} from '../networks/unet2d-condition-config.ts';
import { readUNet2DConfig, type UNet2DConfig } from '../networks/unet2d-config.ts';
import { readVaeEncoderConfig, type VaeEncoderConfig } from '../networks/vae-encoder-config.ts';
import { type Card, readCard } from '../folders/card.ts';
import { classLabels, headLabels, namedLabels } from '../folders/labels.ts';
import { readSchedule, type Schedule } from '../folders/schedule.ts';
import { findWeights, type WeightFile } from '../folders/weights.ts';

/** What all pipelines have; `weights` are those of the denoising network. */
interface CommonFolder extends WeightFile {
  readonly schedule: Schedule;
  readonly card: Card | undefined;
}

/** A pixel model: diffusers' DDPMPipeline or DDIMPipeline of a UNet2DModel and a scheduler. */
export interface PixelModelFolder extends CommonFolder {
  readonly kind: 'pixel';
  readonly unet: UNet2DConfig;
  /** The name of every class, in the order of their numbers; empty for a model without classes. */
  readonly labels: readonly string[];
  /**
   * Predictions that a multi-head model makes at once: one per class; if there is one more than `labels`, the last is
   * unconditional. Undefined for a network that is conditioned on the class.
   */
  readonly heads?: number | undefined;
}

/** The autoencoder of a latent model. */
export interface VaeFolder extends WeightFile {
  readonly config: VaeEncoderConfig;
}

/** A text-to-image model: diffusers' StableDiffusionPipeline, 1.x and 2.x. */
export interface TextModelFolder extends CommonFolder {
  readonly kind: 'text';
  readonly unet: UNet2DConditionConfig;
  readonly vae: VaeFolder;
  /** The folders of the text encoder and the tokenizer, by name. */
  readonly textEncoder: string;
  readonly tokenizer: string;
}

/** A class-conditional latent transformer: diffusers' DiTPipeline. */
export interface TransformerFolder extends CommonFolder {
  readonly kind: 'transformer';
  readonly transformer: DitConfig;
  readonly vae: VaeFolder;
  readonly labels: readonly string[];
}

/** Every kind of pipeline that this version runs. */
export type PipelineFolder = PixelModelFolder | TextModelFolder | TransformerFolder;

/** The kinds of folders of all supported pipelines. */
const pipelines: ReadonlyMap<string, PipelineFolder['kind']> = new Map([
  ['DDPMPipeline', 'pixel'],
  ['DDIMPipeline', 'pixel'],
  ['StableDiffusionPipeline', 'text'],
  ['StableDiffusionImg2ImgPipeline', 'text'],
  ['DiTPipeline', 'transformer'],
]);

/** Known pipelines that are not supported, with what they are. */
const others: ReadonlyMap<string, string> = new Map([
  ['EDMPrecond', 'an EDM model, whose folder has a config.json and no model_index.json'],
  ['StableDiffusionXLPipeline', 'Stable Diffusion XL, whose two text encoders are not supported'],
  ['StableDiffusion3Pipeline', 'Stable Diffusion 3, a flow model without noise levels as they are used here'],
  ['FluxPipeline', 'a Flux model, a flow without noise levels as they are used here'],
  ['StableDiffusionInpaintPipeline', 'an inpainting model, whose network also takes a mask'],
  ['StableDiffusionUpscalePipeline', 'an upscaler, whose network also takes a small image'],
]);
const SUPPORTED =
  'expected Stable Diffusion 1.x or 2.x (StableDiffusionPipeline), DiTPipeline, DDPMPipeline or DDIMPipeline';

const component = z.tuple([z.string().nullable(), z.string().nullable()]);
const indexSchema = z.object({
  _class_name: z.string(),
  unet: component.optional(),
  vae: component.optional(),
  text_encoder: component.optional(),
  tokenizer: component.optional(),
  transformer: component.optional(),
  id2label: z.record(z.string(), z.string()).nullish(),
  /** A pixel model whose last convolution predicts for every class; without it, known by its channels. */
  multi_head: z.boolean().nullish(),
});
type Index = z.output<typeof indexSchema>;
type Part = 'unet' | 'vae' | 'text_encoder' | 'tokenizer' | 'transformer';

/** What the readers of all kinds share. */
interface Reading {
  readonly files: Files;
  readonly index: Index;
  readonly indexFile: string;
  /** Throws if the index names another class for a part; a part that it leaves out is assumed to be as expected. */
  readonly expect: (part: Part, ...classes: string[]) => void;
  /** Reads the schedule and the card, and finds the weights of the denoising network in `part`. */
  readonly common: (part: 'unet' | 'transformer') => Promise<CommonFolder>;
}

/**
 * Reads a pipeline's folder by its `model_index.json`.
 * @throws ModelError naming the file that is missing, broken or not supported.
 */
export async function readPipelineFolder(files: Files): Promise<PipelineFolder> {
  const indexFile = files.describe('model_index.json');
  const raw = await readJson(files, 'model_index.json');
  const { _class_name: pipeline } = checked(z.object({ _class_name: z.string() }), raw, indexFile);
  const kind = pipelines.get(pipeline);
  if (!kind) throw notSupported(indexFile, pipeline);
  const index = checked(indexSchema, raw, indexFile);
  const reading: Reading = {
    files,
    index,
    indexFile,
    expect(part, ...classes) {
      const actual = index[part]?.[1];
      if (index[part] && !classes.includes(actual ?? ''))
        throw new ModelError(
          `${indexFile}: expected the ${part} to be ${classes.join(' or ')}, got ${quote(actual)}`,
        );
    },
    async common(part) {
      const weights = await findWeights(files, part, 'diffusion_pytorch_model');
      const schedule = await readScheduler(files);
      const card = await readCard(files, schedule.numTrainTimesteps);
      return { files, weights, schedule, card };
    },
  };
  switch (kind) {
    case 'pixel':
      return readPixelModel(reading);
    case 'text':
      return readTextModel(reading);
    case 'transformer':
      return readTransformer(reading);
    default:
      return kind satisfies never;
  }
}

async function readPixelModel({
  files,
  index,
  indexFile,
  expect,
  common,
}: Reading): Promise<PixelModelFolder> {
  expect('unet', 'UNet2DModel');
  const unetFile = files.describe('unet/config.json');
  const unet = await readUNet2DConfig(files, 'unet/config.json');
  if (!unet.sampleSize)
    throw new ModelError(`${unetFile}: sample_size is missing; a pixel model needs the size of its images`);
  const heads = headsOf(index, unet, unetFile, indexFile);
  if (heads === undefined && unet.outChannels !== unet.inChannels)
    throw new ModelError(
      `${unetFile}: expected out_channels ${unet.inChannels} as in_channels, got ${unet.outChannels} (learned variances are not supported${unet.classEmbedding === 'none' ? '; a multi-head model names its classes in id2label' : ''})`,
    );
  const shared = await common('unet');
  if (heads === undefined) {
    const labels = classLabels(index.id2label ?? undefined, unet, shared.card, indexFile);
    return { kind: 'pixel', ...shared, unet, labels };
  }
  const labels = headLabels(index.id2label ?? undefined, heads, shared.card, indexFile);
  return { kind: 'pixel', ...shared, unet, labels, heads };
}

/**
 * Returns the number of heads of a multi-head network (Chen et al. 2024, section on multi-head diffusion), undefined for
 * other networks. It is out_channels / in_channels if `multi_head` is set, or if the network is not conditioned on a class
 * and has as many heads as id2label has names, or one more.
 * @throws ModelError if `multi_head` is set for a network that is not one.
 */
function headsOf(
  { multi_head: marked, id2label }: Index,
  unet: UNet2DConfig,
  unetFile: string,
  indexFile: string,
): number | undefined {
  const heads = unet.outChannels / unet.inChannels;
  const named = Object.keys(id2label ?? {}).length;
  if (!marked) {
    const known = unet.classEmbedding === 'none' && named > 1 && (heads === named || heads === named + 1);
    return known && marked !== false ? heads : undefined;
  }
  if (unet.classEmbedding !== 'none')
    throw new ModelError(
      `${indexFile}: multi_head is set, but the network is conditioned on a class (${unetFile})`,
    );
  if (!Number.isInteger(heads) || heads < 2)
    throw new ModelError(
      `${unetFile}: expected out_channels to be in_channels ${unet.inChannels} per class in a multi-head model, got ${unet.outChannels}`,
    );
  return heads;
}

async function readTextModel({ files, expect, common }: Reading): Promise<TextModelFolder> {
  expect('unet', 'UNet2DConditionModel');
  expect('vae', 'AutoencoderKL');
  expect('text_encoder', 'CLIPTextModel');
  expect('tokenizer', 'CLIPTokenizer', 'CLIPTokenizerFast');
  const unetFile = files.describe('unet/config.json');
  const unet = await readUNet2DConditionConfig(files, 'unet/config.json');
  const vae = await readVae(files, unet.inChannels, unetFile);
  if (unet.outChannels !== unet.inChannels)
    throw new ModelError(
      `${unetFile}: expected out_channels ${unet.inChannels} as in_channels, got ${unet.outChannels} (learned variances are not supported)`,
    );
  const { hiddenSize } = await readClipTextConfig(files, 'text_encoder/config.json');
  if (hiddenSize !== unet.crossAttentionDim)
    throw new ModelError(
      `${unetFile}: cross_attention_dim is ${unet.crossAttentionDim}, the text encoder gives ${hiddenSize}`,
    );
  return {
    kind: 'text',
    ...(await common('unet')),
    unet,
    vae,
    textEncoder: 'text_encoder',
    tokenizer: 'tokenizer',
  };
}

async function readTransformer({
  files,
  index,
  indexFile,
  expect,
  common,
}: Reading): Promise<TransformerFolder> {
  expect('transformer', 'DiTTransformer2DModel', 'Transformer2DModel');
  expect('vae', 'AutoencoderKL');
  const file = files.describe('transformer/config.json');
  const transformer = await readDitConfig(files, 'transformer/config.json');
  const vae = await readVae(files, transformer.inChannels, file);
  const given = Object.keys(index.id2label ?? {}).length;
  if (given > transformer.numEmbedsAdaNorm)
    throw new ModelError(
      `${indexFile}: id2label names ${given} classes, num_embeds_ada_norm is ${transformer.numEmbedsAdaNorm}`,
    );
  const labels = namedLabels(index.id2label ?? undefined, given || transformer.numEmbedsAdaNorm, indexFile);
  return { kind: 'transformer', ...(await common('transformer')), transformer, vae, labels };
}

/** Reads the autoencoder; its latents must have the denoising network's `inChannels`, which `file` configures. */
async function readVae(files: Files, inChannels: number, file: string): Promise<VaeFolder> {
  const config = await readVaeEncoderConfig(files, 'vae/config.json');
  if (config.latentChannels !== inChannels)
    throw new ModelError(
      `${file}: in_channels is ${inChannels}, the autoencoder's latents have ${config.latentChannels} (${files.describe('vae/config.json')})`,
    );
  return { config, files, weights: await findWeights(files, 'vae', 'diffusion_pytorch_model') };
}

/** Reads the schedule, which also states what the network predicts; nothing is guessed if the file is missing. */
async function readScheduler(files: Files): Promise<Schedule> {
  const file = 'scheduler/scheduler_config.json';
  if (!(await files.list('scheduler'))?.includes('scheduler_config.json'))
    throw new ModelError(
      `${files.describe(file)}: no such file; without it, it is unknown whether the network predicts epsilon or v; copy it from where the model came from`,
    );
  return readSchedule(files, file);
}

function notSupported(file: string, pipeline: string): ModelError {
  const known = others.get(pipeline);
  return new ModelError(
    `${file}: ${quote(pipeline)} is ${known ?? 'a pipeline that is not supported'}; ${SUPPORTED}`,
  );
}
