// The tensors of an AutoencoderKL's encoder, and their parameters out of a file that holds the decoder too.

import { type ExpectedTensor, tensorList } from '../files/expected-tensors.ts';
import { type Parameters, parametersOf } from '../files/parameters.ts';
import type { TensorFile, TensorInfo } from '../files/safetensors.ts';
import type { VaeEncoderConfig } from './vae-encoder-config.ts';

/** The mid block's attention: its current and its old names, in the order query, key, value, output. */
const attention = 'encoder.mid_block.attentions.0';
const projections = [
  ['to_q', 'query'],
  ['to_k', 'key'],
  ['to_v', 'value'],
  ['to_out.0', 'proj_attn'],
] as const;

/** All tensors of `encoder` and `quant_conv` under diffusers' current names, with the old names beside them. */
export function vaeEncoderTensors(config: VaeEncoderConfig): readonly ExpectedTensor[] {
  const { all, conv, norm, resnet } = tensorList();
  const { blockOutChannels: widths, layersPerBlock, latentChannels } = config;
  const first = widths[0]!;
  const last = widths.at(-1)!;
  conv('encoder.conv_in', 3, first);
  for (const [i, width] of widths.entries()) {
    const block = `encoder.down_blocks.${i}`;
    for (let j = 0; j < layersPerBlock; j++)
      resnet(`${block}.resnets.${j}`, j === 0 ? (widths[i - 1] ?? first) : width, width);
    if (i < widths.length - 1) conv(`${block}.downsamplers.0.conv`, width, width);
  }
  resnet('encoder.mid_block.resnets.0', last, last);
  if (config.midBlockAddAttention) {
    norm(`${attention}.group_norm`, last);
    for (const [now, before] of projections) {
      const named = (part: string) => ({
        name: `${attention}.${now}.${part}`,
        oldName: `${attention}.${before}.${part}`,
      });
      all.push({ ...named('weight'), shape: [last, last] }, { ...named('bias'), shape: [last] });
    }
  }
  resnet('encoder.mid_block.resnets.1', last, last);
  norm('encoder.conv_norm_out', last);
  conv('encoder.conv_out', last, 2 * latentChannels);
  if (config.useQuantConv) conv('quant_conv', 2 * latentChannels, 2 * latentChannels, 1);
  return all;
}

const decoder = /^(?:decoder|post_quant_conv)\./;

/** The oldest checkpoints hold the attention's matrices as 1x1 convolutions; the values are the same. */
function asMatrix(info: TensorInfo): TensorInfo {
  const { name, shape } = info;
  const conv1x1 = shape.length === 4 && shape[2] === 1 && shape[3] === 1;
  return conv1x1 && name.startsWith(`${attention}.`) ? { ...info, shape: shape.slice(0, 2) } : info;
}

/**
 * The encoder's parameters. The decoder's tensors are left alone, whatever they are.
 * @throws ModelError where the rest of the file is not exactly the encoder, naming the first few tensors concerned.
 */
export function vaeEncoderParameters(file: TensorFile, config: VaeEncoderConfig): Parameters {
  const tensors = new Map(
    [...file.tensors]
      .filter(([name]) => !decoder.test(name))
      .map(([name, info]) => [name, asMatrix(info)] as const),
  );
  return parametersOf({ ...file, tensors }, vaeEncoderTensors(config));
}
