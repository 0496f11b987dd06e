// Layers that several networks have. Each requests its weights by the names of PyTorch's modules, with the shapes that
// follow from its input.

import type { Activation } from '../../kernels/elementwise/activation.ts';
import { product } from '../../numbers.ts';
import { apply, type Graph, newGraph } from '../core/graph.ts';
import type { ExpectedTensor } from '../files/expected-tensors.ts';
import type { Parameters } from '../files/parameters.ts';
import { type Constant, concatenated, rangeOf, type Value } from '../ops/value.ts';

/** The graph that layers are added to, and the source of their weights. */
export interface Layers {
  readonly graph: Graph;
  readonly parameters: Parameters;
}

/**
 * Returns the tensors that a network requests, in the order of the requests. `run` adds the network to an empty graph,
 * which never runs, with the smallest sample that the network accepts. `run` also requests the tensors that a file must
 * hold although the graph does not read them.
 */
export function recordTensors(run: (layers: Layers) => void): readonly ExpectedTensor[] {
  const tensors = new Map<string, ExpectedTensor>();
  const parameters: Parameters = (name, shape, oldName) => {
    tensors.set(name, { name, shape, oldName });
    const values = () => Promise.reject(new Error(`${name} was only recorded and has no values`));
    return { name, length: product(shape), values };
  };
  run({ graph: newGraph(), parameters });
  return [...tensors.values()];
}

/** Requests the weight of a layer in the given shape, and its bias with one value per row of the weight. */
export const weightAndBias = (
  { parameters }: Layers,
  name: string,
  shape: readonly [rows: number, ...columns: number[]],
  oldName?: string,
): { readonly weight: Constant; readonly bias: Constant } => ({
  weight: parameters(`${name}.weight`, shape, oldName && `${oldName}.weight`),
  bias: parameters(`${name}.bias`, [shape[0]], oldName && `${oldName}.bias`),
});

interface LinearLayerOptions {
  readonly activation?: Activation;
  /** The name of the layer in older checkpoints. */
  readonly oldName?: string | undefined;
}

/** Adds act(weight·x + bias) at every pixel: nn.Linear over channels. */
export function linear(
  layers: Layers,
  x: Value,
  name: string,
  outChannels: number,
  { activation = 'none', oldName }: LinearLayerOptions = {},
): Value {
  const constants = weightAndBias(layers, name, [outChannels, x.shape[0]], oldName);
  return apply(layers.graph, 'linear', { outChannels, activation }, { x }, constants);
}

/** Adds a 1x1 convolution: the same product as `linear`, from a weight that is stored with four dimensions. */
export function conv1x1(layers: Layers, x: Value, name: string, outChannels: number): Value {
  const constants = weightAndBias(layers, name, [outChannels, x.shape[0], 1, 1]);
  return apply(layers.graph, 'linear', { outChannels }, { x }, constants);
}

interface ProjectionsOptions {
  readonly bias: boolean;
  /** The names of the layers in older checkpoints. */
  readonly oldNames?: readonly string[] | undefined;
}

/** Adds several linear layers of one input, with `outChannels` each, as one product: [layers · outChannels, n, h, w]. */
export function projections(
  { graph, parameters }: Layers,
  x: Value,
  names: readonly string[],
  outChannels: number,
  { bias, oldNames }: ProjectionsOptions,
): Value {
  const joined = (part: 'weight' | 'bias', shape: readonly number[]) =>
    concatenated(
      names.map((name, i) => parameters(`${name}.${part}`, shape, oldNames && `${oldNames[i]}.${part}`)),
    );
  const constants = {
    weight: joined('weight', [outChannels, x.shape[0]]),
    bias: bias ? joined('bias', [outChannels]) : undefined,
  };
  return apply(graph, 'linear', { outChannels: names.length * outChannels }, { x }, constants);
}

/**
 * Adds one half of a linear layer: the first or second `outChannels` of its 2 · outChannels. The weights of both halves
 * in one buffer may be more than a device binds at once.
 */
export function linearHalf(layers: Layers, x: Value, name: string, outChannels: number, half: 0 | 1): Value {
  const { weight, bias } = weightAndBias(layers, name, [2 * outChannels, x.shape[0]]);
  const of = (constant: Constant) => rangeOf(constant, (half * constant.length) / 2, constant.length / 2);
  return apply(layers.graph, 'linear', { outChannels }, { x }, { weight: of(weight), bias: of(bias) });
}

/** Adds, for each index [1, n, 1, 1], its row of a table of `entries` rows: [channels, n, 1, 1]. */
export const lookUp = (graph: Graph, rows: Constant, entries: number, index: Value): Value =>
  apply(graph, 'gather', { entries, channels: rows.length / entries }, { index }, { table: rows });

/** Adds a 3x3 convolution that keeps the size. */
export function conv3x3(layers: Layers, x: Value, name: string, outChannels: number, affine?: Value): Value {
  const constants = weightAndBias(layers, name, [outChannels, x.shape[0], 3, 3]);
  const attributes = { outChannels, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
  return apply(layers.graph, 'conv2d', attributes, { x, affine }, constants);
}

/** Adds act(GN(x)·(1 + scale) + shift); scale and shift are the rows of `embedding`, or 0 without it. */
export function groupNorm(
  layers: Layers,
  x: Value,
  name: string,
  attributes: { readonly groups: number; readonly eps: number; readonly activation: Activation },
  embedding?: Value,
): Value {
  const { weight: gamma, bias: beta } = weightAndBias(layers, name, [x.shape[0]]);
  return apply(layers.graph, 'groupNorm', attributes, { x, embedding }, { gamma, beta });
}

/** Adds LN(x) over the channels of each pixel. */
export function layerNorm(layers: Layers, x: Value, name: string, eps: number): Value {
  const { weight: gamma, bias: beta } = weightAndBias(layers, name, [x.shape[0]]);
  return apply(layers.graph, 'layerNorm', { eps }, { x }, { gamma, beta });
}

export interface AttentionLayerOptions {
  readonly heads: number;
  readonly headDim: number;
  /** Whether older checkpoints call the layers `query`, `key`, `value` and `proj_attn`. */
  readonly oldNames?: boolean;
}

/** Adds softmax(qᵀk / sqrt(headDim)) over v, per head; then the layer `to_out.0`. */
export function attend(
  layers: Layers,
  name: string,
  { heads, headDim, oldNames = false }: AttentionLayerOptions,
  inputs: { readonly q: Value; readonly k: Value; readonly v: Value },
  outChannels: number,
): Value {
  const attended = apply(layers.graph, 'attention', { heads, scale: 1 / Math.sqrt(headDim) }, { ...inputs });
  const oldName = oldNames ? `${name}.proj_attn` : undefined;
  return linear(layers, attended, `${name}.to_out.0`, outChannels, { oldName });
}

/** Adds attention of the pixels of x to each other; one product computes q, k and v. */
export function selfAttention(
  layers: Layers,
  x: Value,
  name: string,
  options: AttentionLayerOptions & { readonly bias: boolean },
): Value {
  const { heads, headDim, bias, oldNames } = options;
  const count = heads * headDim;
  const named = (names: readonly string[]) => names.map((layer) => `${name}.${layer}`);
  const qkv = projections(layers, x, named(['to_q', 'to_k', 'to_v']), count, {
    bias,
    oldNames: oldNames ? named(['query', 'key', 'value']) : undefined,
  });
  const [q, k, v] = thirds(layers, qkv);
  return attend(layers, name, options, { q, k, v }, x.shape[0]);
}

/** Cuts a value into its first, second and last third of channels. */
export function thirds({ graph }: Layers, x: Value): readonly [Value, Value, Value] {
  const count = x.shape[0] / 3;
  const third = (i: number) => apply(graph, 'slice', { from: i * count, count }, { x });
  return [third(0), third(1), third(2)];
}
