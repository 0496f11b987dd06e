// The layers of a UNet2DConditionModel in the order in which they run: what its tensors, its graph and its list of
// cross-attentions are made from.

import type { UNet2DConditionConfig } from './unet2d-condition-config.ts';

/** A Transformer2DModel: pixels as tokens, through blocks of self-attention, cross-attention and feed-forward. */
export interface Transformer {
  readonly kind: 'transformer';
  readonly name: string;
  readonly channels: number;
  readonly heads: number;
  readonly headDim: number;
  /** heads · headDim: the channels that fit, where the heads do not divide them. */
  readonly inner: number;
  readonly blocks: number;
  /** The attentions of a block that look at the prompt, by number: both of them, or the second. */
  readonly crossed: readonly (1 | 2)[];
}

export type Layer =
  | {
      readonly kind: 'resnet';
      readonly name: string;
      readonly from: number;
      readonly to: number;
      readonly outputScale: number;
    }
  | Transformer
  /** Halves the size. */
  | { readonly kind: 'downsample'; readonly name: string; readonly channels: number }
  /** To the size of the next skip. */
  | { readonly kind: 'upsample'; readonly name: string; readonly channels: number }
  /** What is here is kept as a skip. */
  | { readonly kind: 'keep' }
  /** The channels of the latest skip are joined to what is here. */
  | { readonly kind: 'join' };

/** Everything between `conv_in` and `conv_norm_out`. */
export function unet2dConditionLayers(config: UNet2DConditionConfig): readonly Layer[] {
  const { blockOutChannels: widths, layersPerBlock } = config;
  const layers: Layer[] = [{ kind: 'keep' }];
  const skips = [widths[0]!];
  let width = widths[0]!;
  const keep = (): void => {
    layers.push({ kind: 'keep' });
    skips.push(width);
  };
  const resnet = (name: string, to: number, from = width, outputScale = 1): void => {
    layers.push({ kind: 'resnet', name, from, to, outputScale });
    width = to;
  };
  const transformer = (name: string, level: number, onlyCross = config.onlyCrossAttention[level]!): void => {
    const heads = config.numAttentionHeads[level]!;
    const headDim = Math.floor(width / heads);
    layers.push({
      kind: 'transformer',
      name,
      channels: width,
      heads,
      headDim,
      inner: heads * headDim,
      blocks: config.transformerLayersPerBlock[level]!,
      crossed: onlyCross ? [1, 2] : [2],
    });
  };

  const last = widths.length - 1;
  for (const [level, type] of config.downBlockTypes.entries()) {
    const block = `down_blocks.${level}`;
    for (let j = 0; j < layersPerBlock[level]!; j++) {
      resnet(`${block}.resnets.${j}`, widths[level]!);
      if (type === 'CrossAttnDownBlock2D') transformer(`${block}.attentions.${j}`, level);
      keep();
    }
    if (level === last) continue;
    layers.push({ kind: 'downsample', name: `${block}.downsamplers.0.conv`, channels: width });
    keep();
  }

  const scale = config.midBlockScaleFactor;
  if (config.midBlockType) resnet('mid_block.resnets.0', width, width, scale);
  if (config.midBlockType === 'UNetMidBlock2DCrossAttn') {
    transformer('mid_block.attentions.0', last, false);
    resnet('mid_block.resnets.1', width, width, scale);
  }

  for (const [i, type] of config.upBlockTypes.entries()) {
    const block = `up_blocks.${i}`;
    const level = last - i;
    for (let j = 0; j <= layersPerBlock[level]!; j++) {
      layers.push({ kind: 'join' });
      resnet(`${block}.resnets.${j}`, widths[level]!, width + skips.pop()!);
      if (type === 'CrossAttnUpBlock2D') transformer(`${block}.attentions.${j}`, level);
    }
    if (level > 0) layers.push({ kind: 'upsample', name: `${block}.upsamplers.0.conv`, channels: width });
  }
  return layers;
}
