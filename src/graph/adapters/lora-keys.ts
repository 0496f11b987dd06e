// The names of tensors in LoRA files: which layer of which network they belong to, and which part of its change they are.
// Files of kohya's scripts, of diffusers and of peft name the same layers differently. kohya writes '_' for the '.' between
// modules, so that layers are compared with '_' everywhere.

/** The networks of a pipeline that a LoRA may change, by the names of their folders. */
export type Component = 'unet' | 'text_encoder' | 'text_encoder_2' | 'transformer';

/**
 * What a tensor is to its layer: factors of a matrix product, the factor between them, the factor's scale times the rank,
 * or a whole change of the weight or bias.
 */
export type LoraPart = 'down' | 'up' | 'mid' | 'alpha' | 'diff' | 'bias';

/** What the name of a tensor says. */
export interface LoraKey {
  /** Undefined if the name does not say which network it is of. */
  readonly component: Component | undefined;
  /** The layer with '_' between modules, such as `down_blocks_0_attentions_0_proj_in`. */
  readonly layer: string;
  readonly part: LoraPart;
}

/** Endings of names, each with the ending of the layer that takes its place. */
const PARTS: readonly (readonly [ending: RegExp, part: LoraPart, layer: string])[] = [
  [/\.lora_down\.weight$/, 'down', ''],
  [/\.lora_up\.weight$/, 'up', ''],
  [/\.lora_mid\.weight$/, 'mid', ''],
  [/\.alpha$/, 'alpha', ''],
  [/\.(?:diff|w_norm)$/, 'diff', ''],
  [/\.(?:diff_b|b_norm)$/, 'bias', ''],
  [/\.lora(?:_linear_layer)?\.down\.weight$/, 'down', ''],
  [/\.lora(?:_linear_layer)?\.up\.weight$/, 'up', ''],
  // `lora_A.default.weight` has the name that the adapter has in peft.
  [/\.lora_A(?:\.[^.]+)?\.weight$/, 'down', ''],
  [/\.lora_B(?:\.[^.]+)?\.weight$/, 'up', ''],
  // diffusers before 0.22 had the factors in attention processors.
  [/(?:\.processor)?\.to_out_lora\.down\.weight$/, 'down', '.to_out.0'],
  [/(?:\.processor)?\.to_out_lora\.up\.weight$/, 'up', '.to_out.0'],
  [/(?:\.processor)?\.(to_[qkv])_lora\.down\.weight$/, 'down', '.$1'],
  [/(?:\.processor)?\.(to_[qkv])_lora\.up\.weight$/, 'up', '.$1'],
];

/** Beginnings of names by the networks that they mean. */
const COMPONENTS: readonly (readonly [beginning: RegExp, component: Component])[] = [
  [/^lora_unet_/, 'unet'],
  [/^lora_te1?_/, 'text_encoder'],
  [/^lora_te2_/, 'text_encoder_2'],
  [/^(?:model\.)?diffusion_model\./, 'unet'],
  [/^unet\./, 'unet'],
  [/^text_encoder\./, 'text_encoder'],
  [/^text_encoder_2\./, 'text_encoder_2'],
  [/^transformer\./, 'transformer'],
];

/** Kinds of adapters other than LoRA, by what their names contain. */
const OTHERS: readonly (readonly [content: RegExp, kind: string])[] = [
  [/\.(?:dora_scale|lora_magnitude_vector)(?:\.|$)/, 'a DoRA'],
  [/\.hada_/, 'a LoHa'],
  [/\.lokr_/, 'a LoKr'],
  [/\.(?:oft|boft)_|\.oft_R\./, 'an OFT'],
  [/\.on_input$/, 'an IA3'],
  [/\.[ab][12]\.weight$/, 'a GLoRA'],
  [/lora_embedding_/, 'a LoRA of an embedding'],
  [/\.lora_(?:B|up)\.(?:[^.]+\.)?bias$/, 'a LoRA with biases'],
  [/^bundle_emb\./, 'embeddings in a LoRA'],
  [/^lora_controlnet|^controlnet/, 'a ControlLoRA'],
];

/** Returns what kind of adapter other than LoRA a tensor belongs to; undefined if its name does not say. */
export const otherKind = (name: string): string | undefined =>
  OTHERS.find(([content]) => content.test(name))?.[1];

/** Returns what a tensor's name says; undefined if it is not a name of a LoRA's tensor. */
export function loraKey(name: string): LoraKey | undefined {
  const ending = PARTS.find(([pattern]) => pattern.test(name));
  if (!ending) return undefined;
  const [pattern, part, to] = ending;
  const layer = name.replace(pattern, to).replace(/^base_model\.model\./, '');
  const beginning = COMPONENTS.find(([start]) => start.test(layer));
  const rest = beginning ? layer.replace(beginning[0], '') : layer;
  return { component: beginning?.[1], layer: rest.replaceAll('.', '_'), part };
}

/** Modules of the original implementation's resnets, by diffusers' names of them. */
const RESNET: Readonly<Record<string, string>> = {
  in_layers_0: 'norm1',
  in_layers_2: 'conv1',
  emb_layers_1: 'time_emb_proj',
  out_layers_0: 'norm2',
  out_layers_3: 'conv2',
  skip_connection: 'conv_shortcut',
};

/** Layers of the original implementation that are in no block, by diffusers' names of them. */
const OUTER: Readonly<Record<string, string>> = {
  time_embed_0: 'time_embedding_linear_1',
  time_embed_2: 'time_embedding_linear_2',
  label_emb_0_0: 'add_embedding_linear_1',
  label_emb_0_2: 'add_embedding_linear_2',
  input_blocks_0_0: 'conv_in',
  out_0: 'conv_norm_out',
  out_2: 'conv_out',
};

/**
 * Returns diffusers' name of a UNet's layer that has the name of the original implementation, such as
 * `input_blocks_1_1_proj_in`; any other name as it is. `layers` is `layers_per_block`.
 */
export function diffusersLayer(layer: string, layers: number): string {
  const outer = OUTER[layer];
  if (outer) return outer;
  const middle = /^middle_block_([012])_(.+)$/.exec(layer);
  if (middle) {
    const [, index, rest = ''] = middle;
    return index === '1'
      ? `mid_block_attentions_0_${rest}`
      : `mid_block_resnets_${index === '0' ? 0 : 1}_${RESNET[rest] ?? rest}`;
  }
  const block = /^(input|output)_blocks_(\d+)_([012])_(.+)$/.exec(layer);
  if (!block) return layer;
  const [, side, number, index, rest = ''] = block;
  const at = Number(number) - (side === 'input' ? 1 : 0);
  const [level, place] = [Math.floor(at / (layers + 1)), at % (layers + 1)];
  const name = `${side === 'input' ? 'down' : 'up'}_blocks_${level}`;
  if (index === '0' && rest === 'op') return `${name}_downsamplers_0_conv`;
  if (index !== '0' && rest === 'conv') return `${name}_upsamplers_0_conv`;
  if (index === '0') return `${name}_resnets_${place}_${RESNET[rest] ?? rest}`;
  return `${name}_attentions_${place}_${rest}`;
}
