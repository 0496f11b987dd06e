// A model folder as diffusers saves it: what is in it, checked as far as can be without reading weights.

import { readdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { ModelError } from '../../kernels/errors.ts';
import { readUNet2DConfig, type UNet2DConfig } from '../networks/unet2d-config.ts';
import { type Card, readCard } from './card.ts';
import { checked, quote, readJson, reason } from './json.ts';
import { readSchedule, type Schedule } from './schedule.ts';

/** A pixel model: diffusers' DDPMPipeline or DDIMPipeline of a UNet2DModel and a scheduler. */
export interface PixelModelFolder {
  readonly kind: 'pixel';
  readonly path: string;
  /** The folder's own name. */
  readonly name: string;
  readonly unet: UNet2DConfig;
  /** The UNet's weights for `openSafetensors`: one file, or the index of a sharded set. */
  readonly weights: string;
  readonly schedule: Schedule;
  /** The name of every class, in the order of their numbers; empty for a model without classes. */
  readonly labels: readonly string[];
  readonly card: Card | undefined;
}

/** Every kind of model folder this version runs. */
export type ModelFolder = PixelModelFolder;

const supported = ['DDPMPipeline', 'DDIMPipeline'];
const later: ReadonlyMap<string, string> = new Map([
  ['StableDiffusionPipeline', 'a Stable Diffusion model'],
  ['DiTPipeline', 'a DiT model'],
  ['EDMPrecond', 'an EDM model'],
]);

const component = z.tuple([z.string().nullable(), z.string().nullable()]);
const indexSchema = z.object({
  _class_name: z.string(),
  unet: component.optional(),
  id2label: z.record(z.string(), z.string()).nullish(),
});

/**
 * Reads a model folder: its pipeline, UNet configuration, schedule, class names and card; the weights are only
 * found, not opened. Throws `ModelError`, one sentence naming the file, for whatever is missing, broken or not
 * supported.
 */
export async function readModelFolder(path: string): Promise<ModelFolder> {
  const top = await entries(path);
  if (!top.has('model_index.json')) throw await withoutIndex(path, top);
  const indexFile = join(path, 'model_index.json');
  const raw = await readJson(indexFile);
  const { _class_name: pipeline } = checked(z.object({ _class_name: z.string() }), raw, indexFile);
  if (!supported.includes(pipeline)) throw notSupported(indexFile, pipeline);
  const index = checked(indexSchema, raw, indexFile);
  if (index.unet && index.unet[1] !== 'UNet2DModel')
    throw new ModelError(`${indexFile}: the unet is ${quote(index.unet[1])}, wanted UNet2DModel`);

  const unetFile = join(path, 'unet', 'config.json');
  const unet = await readUNet2DConfig(unetFile);
  if (!unet.sampleSize)
    throw new ModelError(`${unetFile}: sample_size is missing, a pixel model needs the size of its images`);
  if (unet.outChannels !== unet.inChannels)
    throw new ModelError(
      `${unetFile}: out_channels is ${unet.outChannels}, wanted in_channels ${unet.inChannels} (learned variances are not supported)`,
    );
  const weights = await findWeights(join(path, 'unet'), 'diffusion_pytorch_model');
  const schedule = await readSchedule(join(path, 'scheduler', 'scheduler_config.json'));
  const card = top.has('card.json')
    ? await readCard(join(path, 'card.json'), schedule.numTrainTimesteps)
    : undefined;
  const labels = classLabels(index.id2label ?? undefined, unet, card, indexFile);
  return { kind: 'pixel', path, name: basename(resolve(path)), unet, weights, schedule, labels, card };
}

/** Throws `ModelError` when a model cannot classify because it has no classes, or only one. */
export function requireClasses(folder: ModelFolder): void {
  if (folder.labels.length === 0)
    throw new ModelError(
      `${folder.path}: the model has no classes (neither num_class_embeds nor id2label is there), it cannot classify`,
    );
  if (folder.labels.length === 1)
    throw new ModelError(`${folder.path}: the model has only one class, there is nothing to decide`);
}

function notSupported(file: string, pipeline: string): ModelError {
  const known = later.get(pipeline);
  return new ModelError(
    known
      ? `${file}: ${quote(pipeline)}, ${known}, comes in a later version, wanted ${supported.join(' or ')}`
      : `${file}: the pipeline ${quote(pipeline)} is not supported, wanted ${supported.join(' or ')}`,
  );
}

/** A folder without model_index.json may still be an EDM model, or one component of a pipeline. */
async function withoutIndex(path: string, top: ReadonlySet<string>): Promise<ModelError> {
  if (top.has('config.json')) {
    const file = join(path, 'config.json');
    const config = checked(z.object({ _class_name: z.string().optional() }), await readJson(file), file);
    if (config._class_name === 'EDMPrecond') return notSupported(file, 'EDMPrecond');
    if (config._class_name)
      return new ModelError(
        `${file}: ${quote(config._class_name)} alone is no model, wanted the folder with model_index.json`,
      );
  }
  return new ModelError(
    `${join(path, 'model_index.json')}: no such file, wanted a model folder as diffusers saves it`,
  );
}

/**
 * The names of the classes: `id2label` with every number 0 .. N-1, or the numbers themselves when there is none.
 * A network with N class embeddings has N classes; id2label may name all but the last (the null class of a network
 * trained for guidance), and a card's `classes` settles any other number.
 */
function classLabels(
  id2label: Readonly<Record<string, string>> | undefined,
  unet: UNet2DConfig,
  card: Card | undefined,
  file: string,
): readonly string[] {
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  const given = id2label && Object.keys(id2label).length;
  const rows = unet.numClassEmbeds;
  if (unet.classEmbedding === 'none' || unet.classEmbedding === 'identity') {
    if (given) throw refuse(`id2label names ${given} classes, but the unet takes no class numbers`);
    return [];
  }
  if (card?.classes !== undefined && rows !== undefined && card.classes > rows)
    throw refuse(`the card has ${card.classes} classes, num_class_embeds is ${rows}`);
  const nullClass = given !== undefined && given + 1 === rows && !Object.hasOwn(id2label!, String(given));
  const wanted = card?.classes ?? (nullClass ? given : (rows ?? given ?? 0));
  if (!id2label) return Array.from({ length: wanted }, (_, i) => String(i));
  const stray = Object.keys(id2label).find((key) => !/^(?:0|[1-9]\d*)$/.test(key) || Number(key) >= wanted);
  if (stray !== undefined)
    throw refuse(`id2label has the key ${quote(stray)}, wanted the numbers 0 to ${wanted - 1}`);
  return Array.from({ length: wanted }, (_, i) => {
    const label = id2label[String(i)];
    if (label === undefined)
      throw refuse(`id2label names ${given} classes and not ${i}, wanted all of 0 to ${wanted - 1}`);
    return label;
  });
}

/**
 * Finds the safetensors weights `stem` in a component's folder: a single file, the index of a sharded set, or
 * the fp16 variant of either, in this order. Throws `ModelError` when there is none, and says what to do when
 * there are only pickles.
 */
export async function findWeights(folder: string, stem: string): Promise<string> {
  const names = await entries(folder);
  const wanted = [
    `${stem}.safetensors`,
    `${stem}.safetensors.index.json`,
    `${stem}.fp16.safetensors`,
    `${stem}.safetensors.index.fp16.json`,
    `${stem}.fp16.safetensors.index.json`,
  ];
  const found = wanted.find((name) => names.has(name));
  if (found) return join(folder, found);
  const pickle = [...names].sort().find((name) => /\.(?:bin|bin\.index\.json|pt|pth|ckpt|pkl)$/.test(name));
  if (pickle)
    throw new ModelError(
      `${join(folder, pickle)}: weights in a pickle can run code and are not read, convert them once with diffusers ` +
        '(from_pretrained, then save_pretrained with safe_serialization=True)',
    );
  const other = [...names].filter((name) => name.endsWith('.safetensors')).sort();
  throw new ModelError(
    `${join(folder, wanted[0]!)}: no such file${other.length > 0 ? ` (there is ${quote(other[0])})` : ''}`,
  );
}

async function entries(folder: string): Promise<ReadonlySet<string>> {
  try {
    return new Set(await readdir(folder));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') throw new ModelError(`${folder}: no such folder`);
    throw new ModelError(`${folder}: ${code === 'ENOTDIR' ? 'is not a folder' : reason(error)}`);
  }
}
