// diffusers' ResnetBlock2D and what stands between levels of resolution.

import type { Activation } from '../../kernels/elementwise/activation.ts';
import { apply } from '../core/graph.ts';
import type { Value } from '../ops/value.ts';
import { conv3x3, groupNorm, type Layers, linear, weightAndBias } from './layers.ts';

/** What all residual blocks of a network have in common. */
export interface ResnetLayers extends Layers {
  readonly normNumGroups: number;
  readonly normEps: number;
  readonly activation: Activation;
  /** act(time embedding) [dim, n, 1, 1], which every block projects; an autoencoder has none. */
  readonly embedding?: Value;
  /** Its projection scales and shifts what the second norm made, instead of being added in front of it. */
  readonly scaleShift: boolean;
}

/** norm, act, (resample), conv, embedding, norm, act, conv; plus the input; divided by `outputScale`. */
export function resnet(
  layers: ResnetLayers,
  x: Value,
  name: string,
  { resample, outputScale = 1 }: { resample?: 'upsample' | 'averagePool'; outputScale?: number } = {},
): Value {
  const { graph, normNumGroups: groups, normEps: eps, activation, embedding, scaleShift } = layers;
  const resampled = (value: Value) => (resample ? apply(graph, resample, {}, { x: value }) : value);
  const projected = embedding && linear(layers, embedding, `${name}.time_emb_proj`);

  let h = groupNorm(layers, x, `${name}.norm1`, { groups, eps, activation });
  h = conv3x3(layers, resampled(h), `${name}.conv1`);
  if (projected && !scaleShift) h = apply(graph, 'addRows', {}, { x: h, embedding: projected });
  h = groupNorm(layers, h, `${name}.norm2`, { groups, eps, activation }, scaleShift ? projected : undefined);

  let shortcut = resampled(x);
  if (h.shape[0] !== x.shape[0]) shortcut = linear(layers, shortcut, `${name}.conv_shortcut`);
  h = conv3x3(layers, h, `${name}.conv2`);
  return apply(graph, 'add', { scale: 1 / outputScale }, { x1: h, x2: shortcut });
}

/** A strided 3x3 convolution; padding 0 means one row of zeros below and one column to the right. */
export function downsample({ graph, parameters }: Layers, x: Value, name: string, padding: 0 | 1): Value {
  const { weight, bias } = weightAndBias(parameters, name);
  const around = padding === 0 ? ([0, 0, 1, 1] as const) : ([1, 1, 1, 1] as const);
  return apply(
    graph,
    'conv2d',
    { outChannels: bias.length, kernel: [3, 3], stride: 2, padding: around },
    { x },
    { weight, bias },
  );
}

/** Nearest upsampling, to twice the size where none is given, and a 3x3 convolution. */
export function upsample(
  layers: Layers,
  x: Value,
  name: string,
  size: readonly [height: number, width: number] = [2 * x.shape[2], 2 * x.shape[3]],
): Value {
  const twice = size[0] === 2 * x.shape[2] && size[1] === 2 * x.shape[3];
  return conv3x3(layers, apply(layers.graph, 'upsample', twice ? {} : { size }, { x }), name);
}
