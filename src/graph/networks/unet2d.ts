// diffusers' UNet2DModel as a graph: time and class embedding, down blocks, middle block, up blocks with skips
// (Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; scale_shift follows Dhariwal and Nichol 2021).

import { apply, type Graph, input } from '../core/graph.ts';
import type { ExpectedTensor } from '../files/expected-tensors.ts';
import type { Parameters } from '../files/parameters.ts';
import type { Value } from '../ops/value.ts';
import { conv3x3, groupNorm, type Layers, linear, lookUp, recordTensors } from './layers.ts';
import { attentionBlock, downsample, resnet, resnetLayers, upsample } from './resnet.ts';
import { timeRowLength } from './time-embedding.ts';
import { attentionHeads, type DownBlockType, type UNet2DConfig, type UpBlockType } from './unet2d-config.ts';

interface UNet2DInputs {
  /** x_t [inChannels, n, h, w]. */
  readonly sample: Value;
  /** The time embedding before its layers: rows of `timeRows` [dim, n, 1, 1]. */
  readonly time: Value;
  /** The class: an index [1, n, 1, 1], or rows for the class embeddings `timestep` and `identity`. */
  readonly label?: Value;
  /** Rows 2, then -1, that centre the input for `center_input_sample`: [2·inChannels, n, 1, 1]. */
  readonly centre?: Value;
}

const hasAttention = (type: DownBlockType | UpBlockType): boolean =>
  type === 'AttnDownBlock2D' || type === 'AttnUpBlock2D';
const resnetResampled = (type: DownBlockType | UpBlockType, kind: 'conv' | 'resnet'): boolean =>
  type === 'ResnetDownsampleBlock2D' ||
  type === 'ResnetUpsampleBlock2D' ||
  (hasAttention(type) && kind === 'resnet');

/** Adds time_embedding(time) + class_embedding(label), before the activation that every resnet applies to it. */
function embed(layers: Layers, config: UNet2DConfig, { time, label }: UNet2DInputs): Value {
  const { graph, parameters } = layers;
  const channels = config.timeEmbeddingDim;
  const mlp = (x: Value, name: string) => {
    const hidden = linear(layers, x, `${name}.linear_1`, channels, { activation: 'silu' });
    return linear(layers, hidden, `${name}.linear_2`, channels);
  };
  const timeEmbedding = mlp(time, 'time_embedding');
  if (!label) return timeEmbedding;
  let classEmbedding = label;
  if (config.classEmbedding === 'timestep') classEmbedding = mlp(label, 'class_embedding');
  else if (config.classEmbedding === 'table') {
    const entries = config.numClassEmbeds!;
    const rows = parameters('class_embedding.weight', [entries, channels]);
    classEmbedding = lookUp(graph, rows, entries, label);
  }
  return apply(graph, 'add', {}, { x1: timeEmbedding, x2: classEmbedding });
}

/**
 * Adds the network to the graph and returns its output [outChannels, n, h, w]. With the time embedding `fourier`,
 * diffusers divides the output by the timestep; here the caller does, because the graph does not have the timestep.
 */
export function unet2d(
  graph: Graph,
  parameters: Parameters,
  config: UNet2DConfig,
  inputs: UNet2DInputs,
): Value {
  const embedded = embed({ graph, parameters }, config, inputs);
  const embedding = apply(graph, 'activation', { activation: config.actFn }, { x: embedded });
  const { blockOutChannels: widths, layersPerBlock, normNumGroups, normEps } = config;
  const layers = resnetLayers(graph, parameters, config, embedding);
  const attention = (x: Value, name: string, groups: number | undefined, outputScale = 1) =>
    attentionBlock(layers, x, name, attentionHeads(config, x.shape[0]), { groups, outputScale });

  let h = conv3x3(layers, inputs.sample, 'conv_in', widths[0]!, inputs.centre);
  const skips = [h];
  config.downBlockTypes.forEach((type, i) => {
    const block = `down_blocks.${i}`;
    for (let j = 0; j < layersPerBlock; j++) {
      h = resnet(layers, h, `${block}.resnets.${j}`, widths[i]!);
      if (hasAttention(type)) h = attention(h, `${block}.attentions.${j}`, normNumGroups);
      skips.push(h);
    }
    if (i === widths.length - 1) return;
    h = resnetResampled(type, config.downsampleType)
      ? resnet(layers, h, `${block}.downsamplers.0`, widths[i]!, { resample: 'averagePool' })
      : downsample(layers, h, `${block}.downsamplers.0.conv`, config.downsamplePadding);
    skips.push(h);
  });

  if (config.midBlock) {
    const outputScale = config.midBlockScaleFactor;
    const width = widths.at(-1)!;
    h = resnet(layers, h, 'mid_block.resnets.0', width, { outputScale });
    if (config.addAttention)
      h = attention(h, 'mid_block.attentions.0', config.midAttentionGroups, outputScale);
    h = resnet(layers, h, 'mid_block.resnets.1', width, { outputScale });
  }

  config.upBlockTypes.forEach((type, i) => {
    const block = `up_blocks.${i}`;
    const width = widths[widths.length - 1 - i]!;
    for (let j = 0; j <= layersPerBlock; j++) {
      const skip = skips.pop();
      h = resnet(layers, apply(graph, 'concat', {}, { x0: h, x1: skip }), `${block}.resnets.${j}`, width);
      if (hasAttention(type)) h = attention(h, `${block}.attentions.${j}`, normNumGroups);
    }
    if (i === widths.length - 1) return;
    h = resnetResampled(type, config.upsampleType)
      ? resnet(layers, h, `${block}.upsamplers.0`, width, { resample: 'upsample' })
      : upsample(layers, h, `${block}.upsamplers.0.conv`);
  });

  h = groupNorm(layers, h, 'conv_norm_out', { groups: normNumGroups, eps: normEps, activation: 'silu' });
  return conv3x3(layers, h, 'conv_out', config.outChannels);
}

/** Returns the tensors of a UNet2DModel, as diffusers names and shapes them. */
export const unet2dTensors = (config: UNet2DConfig): readonly ExpectedTensor[] =>
  recordTensors(({ graph, parameters }) => {
    const side = 2 ** (config.blockOutChannels.length - 1);
    const rows = timeRowLength(config);
    // The graph does not read the frequencies: the host computes `timeRows` from them.
    if (config.timeEmbeddingType === 'fourier') parameters('time_proj.weight', [config.blockOutChannels[0]!]);
    const labelRows = { none: 0, table: 1, timestep: rows, identity: config.timeEmbeddingDim };
    const channels = labelRows[config.classEmbedding];
    unet2d(graph, parameters, config, {
      sample: input(graph, 'sample', [config.inChannels, 1, side, side]),
      time: input(graph, 'time', [rows, 1, 1, 1]),
      ...(channels > 0 ? { label: input(graph, 'label', [channels, 1, 1, 1]) } : {}),
    });
  });
