// Layers that several networks have: a weight's name in diffusers' checkpoints, and the op that it belongs to.

import type { Activation } from '../../kernels/elementwise/activation.ts';
import { apply, type Graph } from '../core/graph.ts';
import type { Parameters } from '../files/parameters.ts';
import type { Constant, Value } from '../ops/value.ts';

/** Where layers are added, and where their weights come from. */
export interface Layers {
  readonly graph: Graph;
  readonly parameters: Parameters;
}

/** The constants of a layer that has both. */
export const weightAndBias = (
  parameters: Parameters,
  name: string,
): { readonly weight: Constant; readonly bias: Constant } => ({
  weight: parameters(`${name}.weight`),
  bias: parameters(`${name}.bias`),
});

/** act(weight x + bias) at every pixel: nn.Linear over channels, and the 1x1 convolution. */
export function linear(
  { graph, parameters }: Layers,
  x: Value,
  name: string,
  activation: Activation = 'none',
): Value {
  const { weight, bias } = weightAndBias(parameters, name);
  return apply(graph, 'linear', { outChannels: bias.length, activation }, { x }, { weight, bias });
}

/** Several layers of one input as one product: a value [outChannels of them all, n, h, w]. */
export function projections(
  { graph, parameters }: Layers,
  x: Value,
  names: readonly string[],
  outChannels: number,
  bias: boolean,
): Value {
  return apply(
    graph,
    'linear',
    { outChannels },
    { x },
    {
      weight: parameters(...names.map((name) => `${name}.weight`)),
      ...(bias ? { bias: parameters(...names.map((name) => `${name}.bias`)) } : {}),
    },
  );
}

/** `length` values of a constant, from element `from` on. */
function part({ name, values, read }: Constant, from: number, length: number): Constant {
  return {
    name: `${name}[${from}:${from + length}]`,
    length,
    values: async () => (await values()).slice(from, from + length),
    ...(read ? { read: (at, into) => read(from + at, into) } : {}),
  };
}

/** The first or second half of a layer's channels out. Both in one buffer may be more than a device binds. */
export function linearHalf({ graph, parameters }: Layers, x: Value, name: string, half: 0 | 1): Value {
  const { weight, bias } = weightAndBias(parameters, name);
  const outChannels = bias.length / 2;
  const of = (constant: Constant) => part(constant, (half * constant.length) / 2, constant.length / 2);
  return apply(graph, 'linear', { outChannels }, { x }, { weight: of(weight), bias: of(bias) });
}

/** A 3x3 convolution that keeps the size. */
export function conv3x3({ graph, parameters }: Layers, x: Value, name: string, affine?: Value): Value {
  const { weight, bias } = weightAndBias(parameters, name);
  const attributes = { outChannels: bias.length, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
  return apply(graph, 'conv2d', attributes, { x, affine }, { weight, bias });
}

/** act(GN(x) (1 + scale) + shift), with scale and shift the rows of `embedding`, where given. */
export function groupNorm(
  { graph, parameters }: Layers,
  x: Value,
  name: string,
  attributes: { readonly groups: number; readonly eps: number; readonly activation: Activation },
  embedding?: Value,
): Value {
  const { weight: gamma, bias: beta } = weightAndBias(parameters, name);
  return apply(graph, 'groupNorm', attributes, { x, embedding }, { gamma, beta });
}

/** LN(x) over the channels of each pixel. */
export function layerNorm({ graph, parameters }: Layers, x: Value, name: string, eps: number): Value {
  const { weight: gamma, bias: beta } = weightAndBias(parameters, name);
  return apply(graph, 'layerNorm', { eps }, { x }, { gamma, beta });
}

export interface HeadsOf {
  readonly heads: number;
  readonly headDim: number;
}

/** softmax(qᵀk / sqrt(headDim)) over v, heads of the channels; then the layer `to_out.0`. */
export function attend(
  layers: Layers,
  name: string,
  { heads, headDim }: HeadsOf,
  inputs: { readonly q: Value; readonly k: Value; readonly v: Value },
): Value {
  const attended = apply(layers.graph, 'attention', { heads, scale: 1 / Math.sqrt(headDim) }, { ...inputs });
  return linear(layers, attended, `${name}.to_out.0`);
}

/** Attention of pixels to each other: one product makes q, k and v. */
export function selfAttention(
  layers: Layers,
  x: Value,
  name: string,
  { heads, headDim, bias }: HeadsOf & { readonly bias: boolean },
): Value {
  const count = heads * headDim;
  const names = ['to_q', 'to_k', 'to_v'].map((part) => `${name}.${part}`);
  const qkv = projections(layers, x, names, 3 * count, bias);
  const part = (i: number) => apply(layers.graph, 'slice', { from: i * count, count }, { x: qkv });
  return attend(layers, name, { heads, headDim }, { q: part(0), k: part(1), v: part(2) });
}
