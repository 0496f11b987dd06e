// Every family of models that this version runs, and which family a model belongs to.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { ditFamily } from '../families/dit/dit-family.ts';
import { edmFamily } from '../families/edm/edm-family.ts';
import type { Family, ModelConfig, ModelIndex } from '../families/family.ts';
import { optimalFamily } from '../families/optimal/optimal-family.ts';
import { pixelFamily } from '../families/pixel/pixel-family.ts';
import { textFamily } from '../families/text/text-family.ts';
import { xlFamily } from '../families/text/xl-family.ts';
import { className, isCustom } from '../files/class-name.ts';
import type { Files } from '../files/files.ts';
import { checked, quote, readJson } from '../files/json.ts';
import { entries } from '../folders/weights.ts';

/** The families. Another one is registered by adding it to this list. */
export const FAMILIES: Family[] = [pixelFamily, edmFamily, textFamily, xlFamily, ditFamily, optimalFamily];

/** A model that was recognised and read, without its weights. */
export interface ReadModel {
  readonly family: Family;
  readonly config: ModelConfig;
}

/** Families of pipelines that are not supported, by the beginnings of their names. */
const UNSUPPORTED_FAMILIES: readonly (readonly [beginning: RegExp, what: string])[] = [
  [
    /^StableDiffusion3/,
    'Stable Diffusion 3, a flow model (as is 3.5) without noise levels as they are used here',
  ],
  [/^Flux|^ReduxImage/, 'a Flux model, a flow without noise levels as they are used here'],
  [
    /^(?:AuraFlow|Sana|Lumina|QwenImage|Chroma|HiDream|OmniGen|Bria|ZImage|CogView4|VisualCloze|Wan|HunyuanVideo|LTX|Mochi|Cosmos|Allegro|SkyReels|Hunyuan(?:Image|Skyreels))/,
    'a flow model, without noise levels as they are used here',
  ],
  [
    /^(?:PixArt|HunyuanDiT|Latte|CogVideo|CogView3|Kolors|EasyAnimate)/,
    'a model with text encoders that are not supported',
  ],
  [
    /^(?:IF|Kandinsky|Wuerstchen|StableCascade|UnCLIP|Amused|ShapE)/,
    'a model of several stages, or of tokens, which is not supported',
  ],
  [
    /^LatentConsistencyModel|^LDM|^KarrasVe|^ScoreSdeVe|^PNDM|^ConsistencyModel/,
    'a pipeline of an older or distilled kind, which is not supported',
  ],
  [
    /ControlNet|Adapter|GLIGEN|PAG|AnimateDiff|Video/,
    'a pipeline with further networks or inputs; its base model may be given instead',
  ],
];

/** What is known of pipelines that are not supported. */
const UNSUPPORTED: ReadonlyMap<string, string> = new Map([
  ['EDMPrecond', 'an EDM model, whose folder has a config.json and no model_index.json'],
  ['StableDiffusionInpaintPipeline', 'an inpainting model, whose network also takes a mask'],
  [
    'StableDiffusionXLInpaintPipeline',
    'an inpainting model of Stable Diffusion XL, whose network also takes a mask',
  ],
  [
    'StableDiffusionXLInstructPix2PixPipeline',
    'an editing model of Stable Diffusion XL, whose network also takes an image',
  ],
  ['StableDiffusionUpscalePipeline', 'an upscaler, whose network also takes a small image'],
]);

const noModel = (files: Files): ModelError =>
  new ModelError(
    `${files.describe('model_index.json')}: no such file; expected a model folder as diffusers saves it, or one with the config.json of EDMPrecond`,
  );

const pipelineIndex = z.object({ _class_name: className });
const networkIndex = z.object({ _class_name: className.optional() });

/**
 * Reads the file that says what a model is.
 * @throws ModelError if there is no such file, or it is not in order.
 */
async function readIndex(files: Files): Promise<ModelIndex> {
  const present = await entries(files, '');
  const name = ['model_index.json', 'config.json'].find((file) => present.has(file)) as ModelIndex['name'];
  if (!name) throw noModel(files);
  const json = await readJson(files, name);
  return {
    name,
    json,
    present,
    className: checked(name === 'model_index.json' ? pipelineIndex : networkIndex, json, files.describe(name))
      ._class_name,
  };
}

/** Returns what an unsupported pipeline is, in the words of a message. */
function whatIs(className: string): string {
  if (isCustom(className)) return 'a pipeline with code of its own, which is not run';
  const family = UNSUPPORTED_FAMILIES.find(([beginning]) => beginning.test(className));
  return UNSUPPORTED.get(className) ?? family?.[1] ?? 'a pipeline that is not supported';
}

/** Explains why a model belongs to no family. A folder that is no model may be one component of a pipeline. */
function unrecognised(files: Files, { name, className }: ModelIndex): ModelError {
  const file = files.describe(name);
  if (name === 'model_index.json')
    return new ModelError(
      `${file}: ${quote(className)} is ${whatIs(className!)}; expected Stable Diffusion 1.x or 2.x (StableDiffusionPipeline), XL (StableDiffusionXLPipeline), DiTPipeline, DDPMPipeline or DDIMPipeline`,
    );
  if (className !== undefined)
    return new ModelError(
      `${file}: ${quote(className)} alone is not a model; give the folder with model_index.json`,
    );
  return noModel(files);
}

/**
 * Recognises a model and reads its configurations, schedule, class names and card. The weights are only found, not opened.
 * @throws ModelError, one sentence naming the file that is missing, broken or not supported.
 */
export async function readModelConfig(files: Files): Promise<ReadModel> {
  const index = await readIndex(files);
  const family = FAMILIES.find((known) => known.recognise(index));
  if (!family) throw unrecognised(files, index);
  return { family, config: await family.config(files, index) };
}

/** @throws ModelError if a model cannot classify because it has no classes, or only one. */
export function requireClasses({ family, config }: ReadModel): void {
  const { conditioning, labels, whyNoClasses } = family.candidates(config);
  if (conditioning === 'text' || labels.length > 1) return;
  const path = config.files.describe('');
  throw new ModelError(
    labels.length === 0
      ? `${path}: the model has no classes (${whyNoClasses}), so it cannot classify`
      : `${path}: the model has only one class, so there is nothing to decide`,
  );
}
