// Blocks of diffusers' UNets and autoencoders: ResnetBlock2D, the attention after it, and changes of resolution.

import type { Activation } from '../../kernels/elementwise/activation.ts';
import { apply, type Graph } from '../core/graph.ts';
import type { Parameters } from '../files/parameters.ts';
import type { Value } from '../ops/value.ts';
import {
  type AttentionLayerOptions,
  conv1x1,
  conv3x3,
  groupNorm,
  type Layers,
  linear,
  selfAttention,
  weightAndBias,
} from './layers.ts';
import type { UNetConfig } from './unet-config.ts';

/** What all residual blocks of a network have in common. */
export interface ResnetLayers extends Layers {
  readonly normNumGroups: number;
  readonly normEps: number;
  readonly activation: Activation;
  /** act(time embedding) [dim, n, 1, 1], which every block projects; undefined in an autoencoder. */
  readonly embedding?: Value;
  /** Whether the projection scales and shifts the output of the second norm, rather than being added to its input. */
  readonly scaleShift: boolean;
}

/** Returns what the residual blocks of a UNet have in common. */
export const resnetLayers = (
  graph: Graph,
  parameters: Parameters,
  { normNumGroups, normEps, actFn, resnetTimeScaleShift }: UNetConfig,
  embedding: Value,
): ResnetLayers => ({
  graph,
  parameters,
  normNumGroups,
  normEps,
  activation: actFn,
  embedding,
  scaleShift: resnetTimeScaleShift === 'scale_shift',
});

/** Adds norm, act, (resample), conv, embedding, norm, act, conv; plus the input; divided by `outputScale`. */
export function resnet(
  layers: ResnetLayers,
  x: Value,
  name: string,
  outChannels: number,
  { resample, outputScale = 1 }: { resample?: 'upsample' | 'averagePool'; outputScale?: number } = {},
): Value {
  const { graph, normNumGroups: groups, normEps: eps, activation, embedding, scaleShift } = layers;
  const resampled = (value: Value) => (resample ? apply(graph, resample, {}, { x: value }) : value);
  const projected =
    embedding &&
    linear(layers, embedding, `${name}.time_emb_proj`, scaleShift ? 2 * outChannels : outChannels);

  let h = groupNorm(layers, x, `${name}.norm1`, { groups, eps, activation });
  h = conv3x3(layers, resampled(h), `${name}.conv1`, outChannels);
  if (projected && !scaleShift) h = apply(graph, 'addRows', {}, { x: h, embedding: projected });
  h = groupNorm(layers, h, `${name}.norm2`, { groups, eps, activation }, scaleShift ? projected : undefined);

  let shortcut = resampled(x);
  if (outChannels !== x.shape[0]) shortcut = conv1x1(layers, shortcut, `${name}.conv_shortcut`, outChannels);
  h = conv3x3(layers, h, `${name}.conv2`, outChannels);
  return apply(graph, 'add', { scale: 1 / outputScale }, { x1: h, x2: shortcut });
}

/** Adds attention over pixels: norm (none if `groups` is undefined), attention; plus the input; divided by `outputScale`. */
export function attentionBlock(
  layers: ResnetLayers,
  x: Value,
  name: string,
  heads: Pick<AttentionLayerOptions, 'heads' | 'headDim'>,
  { groups, outputScale = 1 }: { groups: number | undefined; outputScale?: number },
): Value {
  const attributes = { eps: layers.normEps, activation: 'none' } as const;
  const h = groups === undefined ? x : groupNorm(layers, x, `${name}.group_norm`, { ...attributes, groups });
  const attended = selfAttention(layers, h, name, { ...heads, bias: true, oldNames: true });
  return apply(layers.graph, 'add', { scale: 1 / outputScale }, { x1: attended, x2: x });
}

/** Adds a 3x3 convolution with stride 2. Padding 0 means one row of zeros at the bottom and one column at the right. */
export function downsample(layers: Layers, x: Value, name: string, padding: 0 | 1): Value {
  const [channels] = x.shape;
  const around = padding === 0 ? ([0, 0, 1, 1] as const) : ([1, 1, 1, 1] as const);
  return apply(
    layers.graph,
    'conv2d',
    { outChannels: channels, kernel: [3, 3], stride: 2, padding: around },
    { x },
    weightAndBias(layers, name, [channels, channels, 3, 3]),
  );
}

/** Adds nearest-neighbour upsampling, by default to twice the size, and a 3x3 convolution. */
export function upsample(
  layers: Layers,
  x: Value,
  name: string,
  size: readonly [height: number, width: number] = [2 * x.shape[2], 2 * x.shape[3]],
): Value {
  const twice = size[0] === 2 * x.shape[2] && size[1] === 2 * x.shape[3];
  const upsampled = apply(layers.graph, 'upsample', twice ? {} : { size }, { x });
  return conv3x3(layers, upsampled, name, x.shape[0]);
}
