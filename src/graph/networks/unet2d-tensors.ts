// The tensors a UNet2DModel must have, by name and shape.

import { type ExpectedTensor, tensorList } from '../files/expected-tensors.ts';
import { attentionHeads, type UNet2DConfig } from './unet2d-config.ts';

/**
 * All tensors of a UNet2DModel under diffusers' current names (attention: to_q,
 * to_k, to_v, to_out.0), with the old names (query, key, value, proj_attn) beside them.
 */
export function unet2dTensors(config: UNet2DConfig): readonly ExpectedTensor[] {
  const { all, conv, linear, norm, resnet: block } = tensorList();
  const { blockOutChannels: widths, layersPerBlock: layers, timeEmbeddingDim: embedding } = config;
  const levels = widths.length;
  const first = widths[0]!;
  const last = widths.at(-1)!;

  const scaleShift = config.resnetTimeScaleShift === 'scale_shift';
  const resnet = (name: string, from: number, to: number): void =>
    block(name, from, to, { channels: embedding, scaleShift });
  const attention = (name: string, channels: number, normed = true): void => {
    const { inner } = attentionHeads(config, channels);
    if (normed) norm(`${name}.group_norm`, channels);
    for (const [now, before, from, to] of [
      ['to_q', 'query', channels, inner],
      ['to_k', 'key', channels, inner],
      ['to_v', 'value', channels, inner],
      ['to_out.0', 'proj_attn', inner, channels],
    ] as const) {
      all.push({ name: `${name}.${now}.weight`, shape: [to, from], oldName: `${name}.${before}.weight` });
      all.push({ name: `${name}.${now}.bias`, shape: [to], oldName: `${name}.${before}.bias` });
    }
  };

  conv('conv_in', config.inChannels, first);
  const fourier = config.timeEmbeddingType === 'fourier';
  if (fourier) all.push({ name: 'time_proj.weight', shape: [first] });
  const sinusoids = fourier ? 2 * first : first;
  const mlp = (name: string): void => {
    linear(`${name}.linear_1`, sinusoids, embedding);
    linear(`${name}.linear_2`, embedding, embedding);
  };
  mlp('time_embedding');
  if (config.classEmbedding === 'table')
    all.push({ name: 'class_embedding.weight', shape: [config.numClassEmbeds!, embedding] });
  if (config.classEmbedding === 'timestep') mlp('class_embedding');

  for (const [i, type] of config.downBlockTypes.entries()) {
    const name = `down_blocks.${i}`;
    const width = widths[i]!;
    for (let j = 0; j < layers; j++) {
      resnet(`${name}.resnets.${j}`, j === 0 ? (widths[i - 1] ?? first) : width, width);
      if (type === 'AttnDownBlock2D') attention(`${name}.attentions.${j}`, width);
    }
    if (i === levels - 1) continue;
    const byResnet =
      type === 'ResnetDownsampleBlock2D' ||
      (type === 'AttnDownBlock2D' && config.downsampleType === 'resnet');
    if (byResnet) resnet(`${name}.downsamplers.0`, width, width);
    else conv(`${name}.downsamplers.0.conv`, width, width);
  }

  if (config.midBlock) {
    resnet('mid_block.resnets.0', last, last);
    if (config.addAttention)
      attention('mid_block.attentions.0', last, config.midAttentionGroups !== undefined);
    resnet('mid_block.resnets.1', last, last);
  }

  for (const [i, type] of config.upBlockTypes.entries()) {
    const name = `up_blocks.${i}`;
    const width = widths[levels - 1 - i]!;
    const below = i === 0 ? last : widths[levels - i]!;
    const above = widths[Math.max(levels - 2 - i, 0)]!;
    for (let j = 0; j <= layers; j++) {
      const skip = j === layers ? above : width;
      resnet(`${name}.resnets.${j}`, (j === 0 ? below : width) + skip, width);
      if (type === 'AttnUpBlock2D') attention(`${name}.attentions.${j}`, width);
    }
    if (i === levels - 1) continue;
    const byResnet =
      type === 'ResnetUpsampleBlock2D' || (type === 'AttnUpBlock2D' && config.upsampleType === 'resnet');
    if (byResnet) resnet(`${name}.upsamplers.0`, width, width);
    else conv(`${name}.upsamplers.0.conv`, width, width);
  }

  norm('conv_norm_out', first);
  conv('conv_out', first, config.outChannels);
  return all;
}
