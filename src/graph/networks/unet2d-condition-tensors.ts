// The tensors a UNet2DConditionModel must have, by name and shape.

import { type ExpectedTensor, tensorList } from '../files/expected-tensors.ts';
import type { UNet2DConditionConfig } from './unet2d-condition-config.ts';
import { type Transformer, unet2dConditionLayers } from './unet2d-condition-layers.ts';

/** Hidden channels of a feed-forward network, over those of its input. */
const FEED_FORWARD = 4;

/** All tensors of a UNet2DConditionModel, as diffusers names and shapes them. */
export function unet2dConditionTensors(config: UNet2DConditionConfig): readonly ExpectedTensor[] {
  const { all, conv, linear, norm, resnet } = tensorList();
  const first = config.blockOutChannels[0]!;
  const channels = config.timeEmbeddingDim;
  const embedding = { channels, scaleShift: config.resnetTimeScaleShift === 'scale_shift' };

  const transformer = ({ name, channels, inner, blocks, crossed }: Transformer): void => {
    const projection = config.useLinearProjection
      ? linear
      : (part: string, from: number, to: number) => conv(part, from, to, 1);
    norm(`${name}.norm`, channels);
    projection(`${name}.proj_in`, channels, inner);
    for (let i = 0; i < blocks; i++) {
      const block = `${name}.transformer_blocks.${i}`;
      for (const k of [1, 2, 3]) norm(`${block}.norm${k}`, inner);
      for (const k of [1, 2] as const) {
        const seen = crossed.includes(k) ? config.crossAttentionDim : inner;
        linear(`${block}.attn${k}.to_q`, inner, inner, false);
        linear(`${block}.attn${k}.to_k`, seen, inner, false);
        linear(`${block}.attn${k}.to_v`, seen, inner, false);
        linear(`${block}.attn${k}.to_out.0`, inner, inner);
      }
      linear(`${block}.ff.net.0.proj`, inner, 2 * FEED_FORWARD * inner);
      linear(`${block}.ff.net.2`, FEED_FORWARD * inner, inner);
    }
    projection(`${name}.proj_out`, inner, channels);
  };

  conv('conv_in', config.inChannels, first);
  linear('time_embedding.linear_1', first, channels);
  linear('time_embedding.linear_2', channels, channels);
  for (const layer of unet2dConditionLayers(config)) {
    if (layer.kind === 'resnet') resnet(layer.name, layer.from, layer.to, embedding);
    else if (layer.kind === 'transformer') transformer(layer);
    else if (layer.kind === 'downsample' || layer.kind === 'upsample')
      conv(layer.name, layer.channels, layer.channels);
  }
  norm('conv_norm_out', first);
  conv('conv_out', first, config.outChannels);
  return all;
}
