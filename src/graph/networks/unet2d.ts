// diffusers' UNet2DModel as a graph: time and class embedding, down blocks, middle, up blocks with skips.
// (Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; scale_shift after Dhariwal and Nichol 2021.)

import { apply, type Graph } from '../core/graph.ts';
import type { Parameters } from '../files/parameters.ts';
import type { Value } from '../ops/value.ts';
import { conv3x3, groupNorm, linear, selfAttention } from './layers.ts';
import { downsample, type ResnetLayers, resnet, upsample } from './resnet.ts';
import { attentionHeads, type DownBlockType, type UNet2DConfig, type UpBlockType } from './unet2d-config.ts';

export interface UNet2DInputs {
  /** x_t [inChannels, n, h, w]. */
  readonly sample: Value;
  /** The time embedding before its layers: rows of `timeRows` [dim, n, 1, 1]. */
  readonly time: Value;
  /** What conditions on the class: an index [1, n, 1, 1], or rows for the embedding types timestep and identity. */
  readonly label?: Value;
  /** Rows 2, -1 that centre the input, for `center_input_sample`: [2·inChannels, n, 1, 1]. */
  readonly centre?: Value;
}

/** Attention over pixels: norm, q, k and v, heads, projection; plus the input. */
function attentionBlock(
  layers: ResnetLayers,
  config: UNet2DConfig,
  x: Value,
  name: string,
  groups: number | undefined,
  outputScale = 1,
): Value {
  const attributes = { eps: layers.normEps, activation: 'none' } as const;
  const h = groups === undefined ? x : groupNorm(layers, x, `${name}.group_norm`, { ...attributes, groups });
  const out = selfAttention(layers, h, name, { ...attentionHeads(config, x.shape[0]), bias: true });
  return apply(layers.graph, 'add', { scale: 1 / outputScale }, { x1: out, x2: x });
}

const hasAttention = (type: DownBlockType | UpBlockType): boolean =>
  type === 'AttnDownBlock2D' || type === 'AttnUpBlock2D';
const resnetResampled = (type: DownBlockType | UpBlockType, kind: 'conv' | 'resnet'): boolean =>
  type === 'ResnetDownsampleBlock2D' ||
  type === 'ResnetUpsampleBlock2D' ||
  (hasAttention(type) && kind === 'resnet');

/** time_embedding(time) + class_embedding(label), before the activation that every resnet applies to it. */
function embed(
  graph: Graph,
  parameters: Parameters,
  config: UNet2DConfig,
  { time, label }: UNet2DInputs,
): Value {
  const layers = { graph, parameters };
  const mlp = (x: Value, name: string) =>
    linear(layers, linear(layers, x, `${name}.linear_1`, 'silu'), `${name}.linear_2`);
  const timeEmbedding = mlp(time, 'time_embedding');
  if (!label) return timeEmbedding;
  let classEmbedding = label;
  if (config.classEmbedding === 'timestep') classEmbedding = mlp(label, 'class_embedding');
  else if (config.classEmbedding === 'table') {
    const table = parameters('class_embedding.weight');
    const channels = timeEmbedding.shape[0];
    classEmbedding = apply(
      graph,
      'gather',
      { entries: table.length / channels, channels },
      { index: label },
      { table },
    );
  }
  return apply(graph, 'add', {}, { x1: timeEmbedding, x2: classEmbedding });
}

/**
 * Adds the network to the graph and returns its output [outChannels, n, h, w]. With the time embedding
 * `fourier`, diffusers divides the output by the timestep; that is left to the caller, who knows it.
 */
export function unet2d(
  graph: Graph,
  parameters: Parameters,
  config: UNet2DConfig,
  inputs: UNet2DInputs,
): Value {
  const activation = config.actFn;
  const embedded = embed(graph, parameters, config, inputs);
  const embedding = apply(graph, 'activation', { activation }, { x: embedded });
  const { normNumGroups, normEps } = config;
  const scaleShift = config.resnetTimeScaleShift === 'scale_shift';
  const layers: ResnetLayers = {
    graph,
    parameters,
    normNumGroups,
    normEps,
    activation,
    embedding,
    scaleShift,
  };

  let h = conv3x3(layers, inputs.sample, 'conv_in', inputs.centre);
  const skips = [h];
  config.downBlockTypes.forEach((type, i) => {
    const block = `down_blocks.${i}`;
    for (let j = 0; j < config.layersPerBlock; j++) {
      h = resnet(layers, h, `${block}.resnets.${j}`);
      if (hasAttention(type))
        h = attentionBlock(layers, config, h, `${block}.attentions.${j}`, normNumGroups);
      skips.push(h);
    }
    if (i === config.downBlockTypes.length - 1) return;
    h = resnetResampled(type, config.downsampleType)
      ? resnet(layers, h, `${block}.downsamplers.0`, { resample: 'averagePool' })
      : downsample(layers, h, `${block}.downsamplers.0.conv`, config.downsamplePadding);
    skips.push(h);
  });

  if (config.midBlock) {
    const outputScale = config.midBlockScaleFactor;
    h = resnet(layers, h, 'mid_block.resnets.0', { outputScale });
    if (config.addAttention)
      h = attentionBlock(layers, config, h, 'mid_block.attentions.0', config.midAttentionGroups, outputScale);
    h = resnet(layers, h, 'mid_block.resnets.1', { outputScale });
  }

  config.upBlockTypes.forEach((type, i) => {
    const block = `up_blocks.${i}`;
    for (let j = 0; j <= config.layersPerBlock; j++) {
      const skip = skips.pop();
      h = resnet(layers, apply(graph, 'concat', {}, { x0: h, x1: skip }), `${block}.resnets.${j}`);
      if (hasAttention(type))
        h = attentionBlock(layers, config, h, `${block}.attentions.${j}`, normNumGroups);
    }
    if (i === config.upBlockTypes.length - 1) return;
    h = resnetResampled(type, config.upsampleType)
      ? resnet(layers, h, `${block}.upsamplers.0`, { resample: 'upsample' })
      : upsample(layers, h, `${block}.upsamplers.0.conv`);
  });

  h = groupNorm(layers, h, 'conv_norm_out', { groups: normNumGroups, eps: normEps, activation: 'silu' });
  return conv3x3(layers, h, 'conv_out');
}
