// What a checkpoint file is, by the names and shapes of its tensors; and a sentence for each that is not a model for prompts.

import { ModelError } from '../../errors.ts';
import type { CheckpointFile } from '../files/checkpoint-file.ts';
import { quote } from '../files/json.ts';
import { isTransformersClip } from './clip-encoder.ts';
import { type Tensors, withPrefix } from './key-map.ts';
import { UNET_PREFIX } from './ldm-unet.ts';

/** The kinds that open: Stable Diffusion 1.x, 2.x and XL. */
export type Kind = 'v1' | 'v2' | 'xl';

const FLOW = 'a flow model without noise levels as they are used here';

/** Tensors that only one kind of file has, each with what that file is. The first one found is named. */
const OTHERS: readonly (readonly [pattern: RegExp, what: string])[] = [
  [/(?:^|\.)joint_blocks\.\d+\./, `Stable Diffusion 3 or 3.5, ${FLOW}`],
  [/(?:^|\.)distilled_guidance_layer\./, `Chroma, ${FLOW}`],
  [
    /(?:^|\.)(?:double_blocks|single_blocks|single_transformer_blocks)\.\d+\./,
    `a Flux model or one of its kin, ${FLOW}`,
  ],
  [/(?:^|\.)double_layers\.\d+\./, `AuraFlow, ${FLOW}`],
  [/(?:^|\.)cap_embedder\./, `Lumina or Z-Image, ${FLOW}`],
  [
    /^model\.diffusion_model\.(?:transformer_blocks|blocks|layers)\.\d+\./,
    'a diffusion transformer that is not supported',
  ],
  [
    /^lora_(?:unet|te\d?)_|\.lora_(?:A|B|down|up)\./,
    'a LoRA; give it with --lora and the model that it belongs to with --model',
  ],
  [/^(?:emb_params|string_to_param|clip_[lg])$/, 'a textual inversion; give it with --embedding'],
  [
    /^(?:control_model|input_hint_block|controlnet_cond_embedding)\./,
    'a ControlNet, which steers another model',
  ],
  [/\.motion_modules\./, 'a motion module, which belongs to another model'],
  [
    /^(?:edm_mean|edm_std|edm_vpred\.sigma_max)$/,
    'a model of continuous noise levels (Playground 2.5, CosXL), which is not supported',
  ],
  [/^(?:clip_txt_mapper|effnet_mapper)\./, 'a stage of Stable Cascade'],
];

/** Alone, these are parts of a model. */
const PARTS: readonly (readonly [pattern: RegExp, what: string])[] = [
  [
    /^(?:model\.diffusion_model\.)?input_blocks\.0\.0\./,
    'a checkpoint with a denoising network but no text encoder (cond_stage_model.* or conditioner.*)',
  ],
  [
    /^(?:first_stage_model\.)?encoder\.(?:down|down_blocks)\.0\./,
    'an autoencoder alone; give it with --vae next to a model',
  ],
  [
    /^(?:down_blocks\.0|conv_in)\./,
    'the network of one component in the layout of diffusers; give the folder with model_index.json',
  ],
  [/(?:^|\.)(?:encoder\.layers|transformer\.resblocks)\.0\./, 'a checkpoint of a text encoder alone'],
];

/** The channels that the input of a network has in addition to those of its output tell what else it takes. */
const INPUTS: ReadonlyMap<number, string> = new Map([
  [1, 'a depth-to-image model, whose network also takes a depth map'],
  [3, 'an upscaler, whose network also takes a small image'],
  [4, 'an editing model (InstructPix2Pix), whose network also takes an image'],
  [5, 'an inpainting model, whose network also takes a mask'],
]);

const named = (name: string, what: string) => new ModelError(`${name} is ${what}`);

/** @throws ModelError if the network takes more than a noised latent, a time and a prompt. */
function checkInputs(path: string, unet: Tensors, hasSecondEncoder: boolean): void {
  const input = unet.get('input_blocks.0.0.weight')?.shape[1] ?? 0;
  const output = unet.get('out.2.weight')?.shape[0] ?? input;
  const more = input - output;
  if (more > 0)
    throw named(
      path,
      `${INPUTS.get(more) ?? 'a model whose network takes more than the noised latent'} (${input} input channels)`,
    );
  if (unet.has('label_emb.weight')) throw named(path, 'an upscaler, whose network also takes a noise level');
  if (unet.has('label_emb.0.0.weight') && !hasSecondEncoder)
    throw named(path, "a model whose network also takes an image's embedding (unCLIP)");
}

/**
 * Returns the kind of a checkpoint that holds a denoising network in the layout of `ldm`.
 * @throws ModelError saying what the file is, if it is no such model.
 */
export function kindOf({ path, tensors }: CheckpointFile): Kind {
  const names = [...tensors.keys()];
  for (const [pattern, what] of OTHERS) if (names.some((name) => pattern.test(name))) throw named(path, what);
  const unet = withPrefix(tensors, UNET_PREFIX);
  const encoders = ['cond_stage_model.', 'conditioner.embedders.0.', 'conditioner.embedders.1.'].map(
    (prefix) => withPrefix(tensors, prefix),
  ) as [Tensors, Tensors, Tensors];
  const [condition, first, second] = encoders;
  if (!unet.has('input_blocks.0.0.weight') || encoders.every(({ size }) => size === 0)) {
    for (const [pattern, what] of PARTS)
      if (names.some((name) => pattern.test(name))) throw named(path, what);
    throw new ModelError(
      `${path}: expected a checkpoint of Stable Diffusion 1.x, 2.x or XL (model.diffusion_model.*, first_stage_model.*, cond_stage_model.* or conditioner.*), got other tensors, such as ${quote(names[0] ?? '')}`,
    );
  }
  const refiner =
    second.size === 0 && withPrefix(first, 'model.').size > 0 && unet.has('label_emb.0.0.weight');
  if (refiner)
    throw named(path, 'the refiner of Stable Diffusion XL, which continues the images of another model');
  checkInputs(path, unet, second.size > 0);
  if (second.size > 0) return 'xl';
  const transformersNames = withPrefix(condition, 'transformer.');
  if (!isTransformersClip(transformersNames)) return 'v2';
  // diffusers' conversion writes the text encoder of 2.x by transformers' names if it does not recognise it.
  const linear = names.some(
    (name) =>
      name.startsWith(UNET_PREFIX) &&
      name.endsWith('.1.proj_in.weight') &&
      tensors.get(name)!.shape.length === 2,
  );
  const token = [...transformersNames].find(([name]) => name.endsWith('token_embedding.weight'))?.[1]
    .shape[1];
  return linear && token !== CLIP_L_WIDTH ? 'v2' : 'v1';
}

/** Channels of the text encoder of Stable Diffusion 1.x. */
const CLIP_L_WIDTH = 768;
