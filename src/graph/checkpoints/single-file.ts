// A checkpoint in a single file, presented as the folder that diffusers would save of it, so that whoever reads folders reads
// it too. Nothing is copied: the tensors are read from the file when they are needed.

import { ModelError } from '../../errors.ts';
import { type CheckpointFile, openCheckpoint } from '../files/checkpoint-file.ts';
import type { Files } from '../files/files.ts';
import { jsonFile, noFiles, type VirtualFile, withVirtualFiles } from '../files/virtual-files.ts';
import { virtualSafetensors } from '../files/virtual-safetensors.ts';
import { clipTokenizerFiles, type Padding } from '../text/clip-vocabulary.ts';
import { clipEncoder, isTransformersClip, openClipEncoder, openClipWithProjection } from './clip-encoder.ts';
import { type Tensors, withPrefix } from './key-map.ts';
import { type Kind, kindOf } from './kind.ts';
import { ldmUNet, type MappedNetwork, UNET_PREFIX } from './ldm-unet.ts';
import { ldmVae, VAE_PREFIX, vaeTensors } from './ldm-vae.ts';
import { predictionType } from './overlay.ts';
import { hasZeroTerminalSnr, type Prediction, statedPrediction } from './prediction.ts';

interface SingleFileOptions {
  /** What the network predicts. Default: what the file says; Stable Diffusion 1.x and XL that say nothing predict epsilon. */
  readonly prediction?: Prediction | undefined;
  /** The folder that holds CLIP's `merges.txt`. */
  readonly vocabulary: Files;
  /** Whether the autoencoder comes from elsewhere, so that the file need not have one. */
  readonly hasOtherVae?: boolean;
}

/** A checkpoint as a folder of diffusers. */
interface SingleFile {
  readonly files: Files;
  readonly kind: Kind;
  /** Undefined if the file does not say it and its kind does not determine it: Stable Diffusion 2.x. */
  readonly prediction: Prediction | undefined;
  /** By which the latents of its autoencoder are multiplied. */
  readonly scalingFactor: number;
}

/** Latents are scaled to about unit variance: by this in Stable Diffusion 1.x and 2.x, and in XL. */
const SCALING_FACTORS: Readonly<Record<Kind, number>> = { v1: 0.18215, v2: 0.18215, xl: 0.13025 };

/** Pixels per pixel of a latent in every one of these models; a file without autoencoder does not tell. */
const DOWNSCALE = 8;

/** Returns the side of the images that a model was trained on. Those of 2.x that predict v were trained on 768 pixels. */
function imageSide(kind: Kind, prediction: Prediction | undefined): number {
  if (kind === 'xl') return 1024;
  return kind === 'v2' && prediction === 'v' ? 768 : 512;
}

/** The noise schedule of all these models; a sampler's class does not matter. */
const scheduler = (prediction: Prediction, zeroTerminalSnr: boolean) => ({
  _class_name: 'EulerDiscreteScheduler',
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: 'scaled_linear',
  prediction_type: predictionType(prediction),
  rescale_betas_zero_snr: zeroTerminalSnr,
});

/** A network of the folder: its folder, the name of its weights, its entry in the index, and what it holds. */
interface Component {
  readonly folder: string;
  readonly weights: string;
  readonly entry: readonly [library: string, className: string];
  readonly network: MappedNetwork;
}

const STEM = 'diffusion_pytorch_model.safetensors';

const unetComponent = (network: MappedNetwork): Component => ({
  folder: 'unet',
  weights: STEM,
  entry: ['diffusers', 'UNet2DConditionModel'],
  network,
});

const vaeComponent = (network: MappedNetwork): Component => ({
  folder: 'vae',
  weights: STEM,
  entry: ['diffusers', 'AutoencoderKL'],
  network,
});

const textComponent = (folder: string, className: string, network: MappedNetwork): Component => ({
  folder,
  weights: 'model.safetensors',
  entry: ['transformers', className],
  network,
});

/** Returns the text encoders of a checkpoint, in order, and what prompts are padded with for each. */
function textEncoders(
  kind: Kind,
  { path, tensors }: CheckpointFile,
): [component: Component, padding: Padding][] {
  const part = (prefix: string): [Tensors, string, string] => [withPrefix(tensors, prefix), path, prefix];
  if (kind === 'xl') {
    const first = clipEncoder(...part('conditioner.embedders.0.transformer.'), 'quick_gelu');
    const second = openClipWithProjection(...part('conditioner.embedders.1.model.'));
    return [
      [textComponent('text_encoder', 'CLIPTextModel', first), '<|endoftext|>'],
      [textComponent('text_encoder_2', 'CLIPTextModelWithProjection', second), '!'],
    ];
  }
  const named = part('cond_stage_model.transformer.');
  const network = isTransformersClip(named[0])
    ? clipEncoder(...named, kind === 'v1' ? 'quick_gelu' : 'gelu')
    : openClipEncoder(...part('cond_stage_model.model.'));
  return [[textComponent('text_encoder', 'CLIPTextModel', network), kind === 'v1' ? '<|endoftext|>' : '!']];
}

/** Returns the networks of a checkpoint. @throws ModelError naming what is missing. */
function components(
  checkpoint: CheckpointFile,
  kind: Kind,
  prediction: Prediction | undefined,
  hasOtherVae: boolean,
) {
  const { path, tensors } = checkpoint;
  const text = textEncoders(kind, checkpoint);
  const ownVae = vaeTensors(tensors);
  if (!hasOtherVae && !ownVae)
    throw new ModelError(
      `${path}: the checkpoint has no autoencoder (${VAE_PREFIX}encoder.*); give one with --vae FILE`,
    );
  const unet = ldmUNet(withPrefix(tensors, UNET_PREFIX), path, {
    heads: kind === 'v1' ? '8 heads' : '64 channels',
    side: imageSide(kind, prediction) / DOWNSCALE,
    pooled: text[1]?.[0].network.config.projection_dim as number | undefined,
  });
  const vae =
    hasOtherVae || !ownVae
      ? []
      : [vaeComponent(ldmVae(ownVae, path, { scaling_factor: SCALING_FACTORS[kind] }))];
  return { networks: [unetComponent(unet), ...vae, ...text.map(([component]) => component)], text };
}

/** Returns a network's files. The file is opened anew for each reader, because each closes what it opens. */
function networkFiles(
  [files, name]: readonly [files: Files, name: string],
  describe: (file: string) => string,
  { folder, weights, network }: Component,
  again: (checkpoint: CheckpointFile) => MappedNetwork,
): [name: string, file: VirtualFile][] {
  const config = `${folder}/config.json`;
  return [
    [config, jsonFile(describe(config), network.config)],
    [
      `${folder}/${weights}`,
      {
        description: describe(`${folder}/${weights}`),
        async open() {
          const checkpoint = await openCheckpoint(files, name);
          return virtualSafetensors(again(checkpoint).tensors, new Map(), checkpoint.close);
        },
      },
    ],
  ];
}

/**
 * Presents a checkpoint of Stable Diffusion 1.x, 2.x or XL in the layout of `ldm` or `sgm` (`model.diffusion_model.*`,
 * `first_stage_model.*`, `cond_stage_model.*` or `conditioner.embedders.*`) as a folder of diffusers. Averaged weights
 * (`model_ema.*`) and leftovers of training are ignored.
 * @throws ModelError, one sentence that begins with the file: what it is instead, or what it lacks.
 */
export async function singleFile(
  files: Files,
  name: string,
  { prediction: given, vocabulary, hasOtherVae = false }: SingleFileOptions,
): Promise<SingleFile> {
  const path = files.describe(name);
  const checkpoint = await openCheckpoint(files, name);
  try {
    const kind = kindOf(checkpoint);
    const prediction = given ?? statedPrediction(checkpoint) ?? (kind === 'v2' ? undefined : 'epsilon');
    const base = noFiles(name.replace(/\.[^.]*$/, ''), path);
    const { networks, text } = components(checkpoint, kind, prediction, hasOtherVae);
    const virtual = new Map<string, VirtualFile>();
    for (const [i, component] of networks.entries())
      for (const [file, made] of networkFiles(
        [files, name],
        base.describe,
        component,
        (opened) => components(opened, kind, prediction, hasOtherVae).networks[i]!.network,
      ))
        virtual.set(file, made);
    const tokenizers: [string, readonly string[]][] = [];
    for (const [i, [, padding]] of text.entries()) {
      const folder = i === 0 ? 'tokenizer' : `tokenizer_${i + 1}`;
      tokenizers.push([folder, ['transformers', 'CLIPTokenizer']]);
      const made = await clipTokenizerFiles(vocabulary, padding, (file) =>
        base.describe(`${folder}/${file}`),
      );
      for (const [file, content] of made) virtual.set(`${folder}/${file}`, content);
    }
    const schedule = 'scheduler/scheduler_config.json';
    const zero = hasZeroTerminalSnr(checkpoint);
    virtual.set(schedule, jsonFile(base.describe(schedule), scheduler(prediction ?? 'epsilon', zero)));
    const index = {
      _class_name: kind === 'xl' ? 'StableDiffusionXLPipeline' : 'StableDiffusionPipeline',
      ...Object.fromEntries(networks.map(({ folder, entry }) => [folder, entry])),
      vae: ['diffusers', 'AutoencoderKL'],
      ...Object.fromEntries(tokenizers),
      scheduler: ['diffusers', 'EulerDiscreteScheduler'],
    };
    virtual.set('model_index.json', jsonFile(base.describe('model_index.json'), index));
    return {
      files: withVirtualFiles(base, virtual),
      kind,
      prediction,
      scalingFactor: SCALING_FACTORS[kind],
    };
  } finally {
    await checkpoint.close();
  }
}
