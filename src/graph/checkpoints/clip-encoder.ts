// The text encoders of a checkpoint: CLIP by transformers' names, as in Stable Diffusion 1.x, or by OpenCLIP's, as in 2.x.
// SDXL has one of each.

import { ModelError } from '../../errors.ts';
import { quote } from '../files/json.ts';
import type { VirtualTensor } from '../files/virtual-safetensors.ts';
import {
  countOf,
  headsOf64,
  type KeyRule,
  mapKeys,
  matching,
  partOfRows,
  shapesOf,
  type Tensors,
  transposed,
} from './key-map.ts';
import type { MappedNetwork } from './ldm-unet.ts';

const TRANSFORMERS: readonly KeyRule[] = [[/^text_model\./, '']];

const OPEN_CLIP: readonly KeyRule[] = [
  [/^positional_embedding$/, 'embeddings.position_embedding.weight'],
  [/^token_embedding\./, 'embeddings.token_embedding.'],
  [/^ln_final\./, 'final_layer_norm.'],
  [/^transformer\.resblocks\./, 'encoder.layers.'],
  [/\.ln_1\./, '.layer_norm1.'],
  [/\.ln_2\./, '.layer_norm2.'],
  [/\.mlp\.c_fc\./, '.mlp.fc1.'],
  [/\.mlp\.c_proj\./, '.mlp.fc2.'],
  [/\.attn\.out_proj\./, '.self_attn.out_proj.'],
  [/\.attn\.in_proj_(weight|bias)$/, '.self_attn.in_proj.$1'],
];

/** The number of layers of OpenCLIP's ViT-H, of which Stable Diffusion 2.x uses all but the last. */
const VIT_H_LAYERS = 24;

/** Matches the tensors of the encoder itself by transformers' names; projections and position numbers are left out. */
const ENCODER = /^(?:embeddings\.(?:token|position)_embedding|encoder|final_layer_norm)\./;

/** Returns the encoder whose tensors have transformers' names. */
function encoder(
  named: Tensors,
  path: string,
  { prefix, act, layers }: { readonly prefix: string; readonly act: string; readonly layers?: number },
): MappedNetwork {
  const shape = shapesOf(named, path, prefix);
  const all = countOf(named, /^encoder\.layers\.(\d+)\./);
  const [vocabulary, width] = shape('embeddings.token_embedding.weight', 2) as [number, number];
  const used = layers ?? all;
  const config = {
    architectures: ['CLIPTextModel'],
    model_type: 'clip_text_model',
    vocab_size: vocabulary,
    hidden_size: width,
    intermediate_size: shape('encoder.layers.0.mlp.fc1.weight', 2)[0]!,
    num_hidden_layers: used,
    num_attention_heads: headsOf64(width, path, 'text encoder'),
    max_position_embeddings: shape('embeddings.position_embedding.weight', 2)[0]!,
    hidden_act: act,
  };
  const isUsed = (name: string) => {
    const layer = /^encoder\.layers\.(\d+)\./.exec(name)?.[1];
    return layer === undefined || Number(layer) < used || Number(layer) >= all;
  };
  const tensors = [...named].flatMap(([name, tensor]) =>
    ENCODER.test(name) && isUsed(name) ? [[`text_model.${name}`, tensor] as const] : [],
  );
  return { config, tensors: new Map(tensors) };
}

/** Returns the encoder of a checkpoint whose names are those of transformers. `prefix` completes names in messages. */
export const clipEncoder = (tensors: Tensors, path: string, prefix: string, act: string): MappedNetwork =>
  encoder(mapKeys(tensors, TRANSFORMERS), path, { prefix, act });

/** Returns the tensors by transformers' names: the joint matrices of queries, keys and values are cut in three. */
function openClipTensors(tensors: Tensors, path: string, prefix: string): Tensors {
  const out = new Map<string, VirtualTensor>();
  for (const [name, tensor] of mapKeys(tensors, OPEN_CLIP)) {
    const joint = /^(.*\.self_attn)\.in_proj\.(weight|bias)$/.exec(name);
    if (!joint) {
      out.set(name, tensor);
      continue;
    }
    if (tensor.shape.length === 0 || tensor.shape[0]! % 3 !== 0)
      throw new ModelError(
        `${path}: tensor ${quote(prefix + name)}: expected queries, keys and values below each other, got the shape [${tensor.shape.join(', ')}]`,
      );
    for (const [i, part] of ['q_proj', 'k_proj', 'v_proj'].entries())
      out.set(`${joint[1]}.${part}.${joint[2]}`, partOfRows(tensor, i, 3));
  }
  return out;
}

/**
 * Returns the encoder of Stable Diffusion 2.x by OpenCLIP's names. The whole text tower has a last layer that is not used;
 * files that were made from diffusers' folders have neither that layer nor the tower's projection.
 */
export function openClipEncoder(tensors: Tensors, path: string, prefix: string): MappedNetwork {
  const named = openClipTensors(tensors, path, prefix);
  const all = countOf(named, /^encoder\.layers\.(\d+)\./);
  const whole = named.has('text_projection') || all === VIT_H_LAYERS;
  return encoder(named, path, { prefix, act: 'gelu', layers: whole ? all - 1 : all });
}

/**
 * Returns the second encoder of SDXL, all of whose layers are kept, with its projection. OpenCLIP stores the projection
 * transposed, as `text_projection`; diffusers' scripts store it as it is, as `text_projection.weight`.
 */
export function openClipWithProjection(tensors: Tensors, path: string, prefix: string): MappedNetwork {
  const named = openClipTensors(tensors, path, prefix);
  const { config, tensors: own } = encoder(named, path, { prefix, act: 'gelu' });
  const stored = named.get('text_projection.weight');
  const projection = stored ?? transposed(matrix(named, path, prefix));
  return {
    config: {
      ...config,
      architectures: ['CLIPTextModelWithProjection'],
      projection_dim: projection.shape[0]!,
    },
    tensors: new Map([...own, ['text_projection.weight', projection]]),
  };
}

function matrix(tensors: Tensors, path: string, prefix: string): VirtualTensor {
  shapesOf(tensors, path, prefix)('text_projection', 2);
  return tensors.get('text_projection')!;
}

/** Matches the tensors of a CLIP text encoder by transformers' names, under no prefix. */
export const isTransformersClip = (tensors: Tensors): boolean =>
  matching(tensors, /^(?:text_model\.)?embeddings\.token_embedding\.weight$/).size > 0;
