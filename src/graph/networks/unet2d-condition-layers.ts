// The layers of a UNet2DConditionModel in the order in which they run. Its graph and its list of cross-attentions follow
// from them.

import type { UNet2DConditionConfig } from './unet2d-condition-config.ts';

/** A Transformer2DModel: pixels as tokens, through blocks of self-attention, cross-attention and feed-forward. */
export interface Transformer {
  readonly kind: 'transformer';
  readonly name: string;
  readonly heads: number;
  readonly headDim: number;
  /** heads · headDim, which is less than the channels if the heads do not divide them. */
  readonly inner: number;
  readonly blocks: number;
  /** The numbers of the attentions of a block that are cross-attentions: both, or the second. */
  readonly crossed: readonly (1 | 2)[];
  /** Whether the first and last layer are stored as matrices, not as 1x1 convolutions. */
  readonly linearProjection: boolean;
}

export type UNetLayer =
  | {
      readonly kind: 'resnet';
      readonly name: string;
      /** Channels of the output. */
      readonly to: number;
      readonly outputScale: number;
    }
  | Transformer
  /** Halves the size. */
  | { readonly kind: 'downsample'; readonly name: string }
  /** Upsamples to the size of the next skip. */
  | { readonly kind: 'upsample'; readonly name: string }
  /** Keeps the current value as a skip. */
  | { readonly kind: 'keep' }
  /** Appends the channels of the latest skip to the current value. */
  | { readonly kind: 'join' };

/** Returns everything between `conv_in` and `conv_norm_out`. */
export function unet2dConditionLayers(config: UNet2DConditionConfig): readonly UNetLayer[] {
  const { blockOutChannels: widths, layersPerBlock, transformerLayers } = config;
  const layers: UNetLayer[] = [{ kind: 'keep' }];
  const resnet = (name: string, level: number, outputScale = 1): void => {
    layers.push({ kind: 'resnet', name, to: widths[level]!, outputScale });
  };
  const transformer = (
    name: string,
    level: number,
    blocks: number,
    onlyCross = config.onlyCrossAttention[level]!,
  ): void => {
    const heads = config.numAttentionHeads[level]!;
    const headDim = Math.floor(widths[level]! / heads);
    layers.push({
      kind: 'transformer',
      name,
      heads,
      headDim,
      inner: heads * headDim,
      blocks,
      crossed: onlyCross ? [1, 2] : [2],
      linearProjection: config.useLinearProjection,
    });
  };

  const last = widths.length - 1;
  for (const [level, type] of config.downBlockTypes.entries()) {
    const block = `down_blocks.${level}`;
    for (let j = 0; j < layersPerBlock[level]!; j++) {
      resnet(`${block}.resnets.${j}`, level);
      if (type === 'CrossAttnDownBlock2D')
        transformer(`${block}.attentions.${j}`, level, transformerLayers.down[level]![j]!);
      layers.push({ kind: 'keep' });
    }
    if (level === last) continue;
    layers.push({ kind: 'downsample', name: `${block}.downsamplers.0.conv` }, { kind: 'keep' });
  }

  const scale = config.midBlockScaleFactor;
  if (config.midBlockType) resnet('mid_block.resnets.0', last, scale);
  if (config.midBlockType === 'UNetMidBlock2DCrossAttn') {
    transformer('mid_block.attentions.0', last, transformerLayers.mid, false);
    resnet('mid_block.resnets.1', last, scale);
  }

  for (const [i, type] of config.upBlockTypes.entries()) {
    const block = `up_blocks.${i}`;
    const level = last - i;
    for (let j = 0; j <= layersPerBlock[level]!; j++) {
      layers.push({ kind: 'join' });
      resnet(`${block}.resnets.${j}`, level);
      if (type === 'CrossAttnUpBlock2D')
        transformer(`${block}.attentions.${j}`, level, transformerLayers.up[i]![j]!);
    }
    if (level > 0) layers.push({ kind: 'upsample', name: `${block}.upsamplers.0.conv` });
  }
  return layers;
}
