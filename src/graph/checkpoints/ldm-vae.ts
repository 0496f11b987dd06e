// The image encoder of a checkpoint in the layout of CompVis' and Stability's training code (`first_stage_model.*`, or a file
// of its own without that prefix), or in that of diffusers. The decoder is left out, because no classifier needs it.

import { countOf, type KeyRule, mapKeys, matching, shapesOf, type Tensors, withPrefix } from './key-map.ts';
import type { MappedNetwork } from './ldm-unet.ts';

export const VAE_PREFIX = 'first_stage_model.';

const RULES: readonly KeyRule[] = [
  [/^encoder\.norm_out\./, 'encoder.conv_norm_out.'],
  [/^encoder\.down\.(\d+)\.block\.(\d+)\./, 'encoder.down_blocks.$1.resnets.$2.'],
  [/^encoder\.down\.(\d+)\.downsample\./, 'encoder.down_blocks.$1.downsamplers.0.'],
  [/^encoder\.mid\.block_1\./, 'encoder.mid_block.resnets.0.'],
  [/^encoder\.mid\.block_2\./, 'encoder.mid_block.resnets.1.'],
  [/^encoder\.mid\.attn_1\./, 'encoder.mid_block.attentions.0.'],
  [/\.nin_shortcut\./, '.conv_shortcut.'],
  [/\.attentions\.0\.norm\./, '.attentions.0.group_norm.'],
  [/\.attentions\.0\.(?:q|query)\./, '.attentions.0.to_q.'],
  [/\.attentions\.0\.(?:k|key)\./, '.attentions.0.to_k.'],
  [/\.attentions\.0\.(?:v|value)\./, '.attentions.0.to_v.'],
  [/\.attentions\.0\.(?:proj_out|proj_attn)\./, '.attentions.0.to_out.0.'],
];

/**
 * Returns the tensors of the autoencoder in a checkpoint of a whole model, or in a file of its own, without their prefix;
 * undefined if there is none.
 */
export function vaeTensors(tensors: Tensors): Tensors | undefined {
  const inModel = withPrefix(tensors, VAE_PREFIX);
  const found = inModel.size > 0 ? inModel : tensors;
  return found.has('encoder.conv_in.weight') ? found : undefined;
}

/**
 * Returns the AutoencoderKL of the tensors that `vaeTensors` found.
 * @throws ModelError naming the tensor, by diffusers' name, that is missing or has an impossible shape.
 */
export function ldmVae(
  tensors: Tensors,
  path: string,
  scaling: Readonly<Record<string, unknown>>,
): MappedNetwork {
  const named = mapKeys(matching(tensors, /^(?:encoder|quant_conv)\./), RULES);
  const shape = shapesOf(named, path, '');
  const levels = countOf(named, /^encoder\.down_blocks\.(\d+)\./);
  const widths = Array.from(
    { length: levels },
    (_, level) => shape(`encoder.down_blocks.${level}.resnets.0.conv1.weight`, 4)[0]!,
  );
  const [moments = 0] = shape('encoder.conv_out.weight', 4);
  const config = {
    _class_name: 'AutoencoderKL',
    down_block_types: widths.map(() => 'DownEncoderBlock2D'),
    block_out_channels: widths,
    layers_per_block: Math.max(1, countOf(named, /^encoder\.down_blocks\.0\.resnets\.(\d+)\./)),
    latent_channels: moments / 2,
    norm_num_groups: 32,
    use_quant_conv: named.has('quant_conv.weight'),
    mid_block_add_attention: named.has('encoder.mid_block.attentions.0.group_norm.weight'),
    ...scaling,
  };
  return { config, tensors: named };
}
