// diffusers' UNet2DConditionModel as a graph: the network of Stable Diffusion 1.x and 2.x (Rombach et al. 2022,
// "High-Resolution Image Synthesis with Latent Diffusion Models") and XL (Podell et al. 2023, "SDXL"). It is cut in two at
// its first cross-attention: the part before depends only on the noised latent and the time, so that all prompts share it.
// In XL the prompt also enters every resnet, so that prompts share only the first convolution.

import { apply, concatenate, type Graph, input } from '../core/graph.ts';
import type { ExpectedTensor } from '../files/expected-tensors.ts';
import type { Parameters } from '../files/parameters.ts';
import { table, type Value } from '../ops/value.ts';
import {
  attend,
  conv1x1,
  conv3x3,
  groupNorm,
  type Layers,
  layerNorm,
  linear,
  linearHalf,
  projections,
  recordTensors,
  selfAttention,
} from './layers.ts';
import { downsample, type ResnetLayers, resnet, resnetLayers, upsample } from './resnet.ts';
import { timeRowLength } from './time-embedding.ts';
import { SIZE_NUMBERS, type UNet2DConditionConfig } from './unet2d-condition-config.ts';
import { type Transformer, type UNetLayer, unet2dConditionLayers } from './unet2d-condition-layers.ts';

/** A cross-attention: the prefix of its tensors' names, and the channels of its keys and of its values. */
interface CrossAttention {
  readonly name: string;
  readonly inner: number;
}

/** The keys and values of prompts for one cross-attention, [inner, n, tokens, 1] each. */
interface KeysAndValues {
  readonly k: Value;
  readonly v: Value;
}

/** Returns the keys and values of a cross-attention, for each of n samples. */
type CrossAttend = (name: string, inner: number) => KeysAndValues;

interface SharedInputs {
  /** x_t [inChannels, p, h, w]. */
  readonly sample: Value;
  /** Rows of `timeRows` [dim, p, 1, 1]. */
  readonly time: Value;
}

/** What the added embedding is computed from. */
interface AddedInputs {
  /** Vectors that encode the prompts as a whole [pooledDim, n, 1, 1]. */
  readonly pooled: Value;
  /** Rows of `sizeRow` [SIZE_NUMBERS · sizeDim, n, 1, 1]. */
  readonly size: Value;
}

interface ConditionInputs {
  /** The values that `unet2dConditionShared` returned, each repeated to n samples. */
  readonly shared: readonly Value[];
  readonly crossAttention: CrossAttend;
  /** Given if the configuration has an `addedEmbedding`. */
  readonly added?: AddedInputs | undefined;
}

const GROUP_NORM_EPS = 1e-6;
const LAYER_NORM_EPS = 1e-5;
/** Hidden channels of a feed-forward network per channel of its input. */
const FEED_FORWARD = 4;

const blockOf = ({ name }: Transformer, i: number): string => `${name}.transformer_blocks.${i}`;

/** Returns the cross-attentions of the network, in the order in which they run. */
export const crossAttentions = (config: UNet2DConditionConfig): readonly CrossAttention[] =>
  unet2dConditionLayers(config).flatMap((layer) =>
    layer.kind !== 'transformer'
      ? []
      : Array.from({ length: layer.blocks }, (_, i) =>
          layer.crossed.map((k) => ({ name: `${blockOf(layer, i)}.attn${k}`, inner: layer.inner })),
        ).flat(),
  );

/** Adds the keys and values of a cross-attention for encoded prompts `context` [crossAttentionDim, n, tokens, 1]. */
export function keysAndValues(
  graph: Graph,
  parameters: Parameters,
  { name, inner }: CrossAttention,
  context: Value,
): KeysAndValues {
  const project = (part: string) =>
    projections({ graph, parameters }, context, [`${name}.${part}`], inner, { bias: false });
  return { k: project('to_k'), v: project('to_v') };
}

const sum = ({ graph }: Layers, x1: Value, x2: Value): Value => apply(graph, 'add', {}, { x1, x2 });

/** The state of a transformer block before a cross-attention: its tokens, and their queries. */
interface Queried {
  readonly hidden: Value;
  readonly q: Value;
}

/** Adds the queries of the tokens for attention number k of block i. */
function query(layers: Layers, transformer: Transformer, i: number, k: 1 | 2, hidden: Value): Queried {
  const block = blockOf(transformer, i);
  const h = layerNorm(layers, hidden, `${block}.norm${k}`, LAYER_NORM_EPS);
  const q = projections(layers, h, [`${block}.attn${k}.to_q`], transformer.inner, { bias: false });
  return { hidden, q };
}

/** Adds block i up to its first cross-attention. */
function beforeCross(layers: Layers, transformer: Transformer, i: number, hidden: Value): Queried {
  const [first] = transformer.crossed;
  if (first === 1) return query(layers, transformer, i, 1, hidden);
  const block = blockOf(transformer, i);
  const h = layerNorm(layers, hidden, `${block}.norm1`, LAYER_NORM_EPS);
  const attended = selfAttention(layers, h, `${block}.attn1`, { ...transformer, bias: false });
  return query(layers, transformer, i, 2, sum(layers, attended, hidden));
}

/** Adds block i from its first cross-attention on. */
function fromCross(
  layers: Layers,
  transformer: Transformer,
  i: number,
  queried: Queried,
  crossAttention: CrossAttend,
): Value {
  const block = blockOf(transformer, i);
  const { inner } = transformer;
  let { hidden, q } = queried;
  for (const [j, k] of transformer.crossed.entries()) {
    if (j > 0) ({ q } = query(layers, transformer, i, k, hidden));
    const name = `${block}.attn${k}`;
    const inputs = { q, ...crossAttention(name, inner) };
    const attended = attend(layers, name, transformer, inputs, inner);
    hidden = sum(layers, attended, hidden);
  }
  const h = layerNorm(layers, hidden, `${block}.norm3`, LAYER_NORM_EPS);
  const half = (i: 0 | 1) => linearHalf(layers, h, `${block}.ff.net.0.proj`, FEED_FORWARD * inner, i);
  const gated = apply(layers.graph, 'geglu', {}, { x1: half(0), x2: half(1) });
  return sum(layers, linear(layers, gated, `${block}.ff.net.2`, inner), hidden);
}

/** The layer that projects a transformer's input and output. */
const projectionOf = ({ linearProjection }: Transformer) => (linearProjection ? linear : conv1x1);

/** Adds a transformer up to its first cross-attention. */
function enter(layers: ResnetLayers, transformer: Transformer, x: Value): Queried {
  const { name, inner } = transformer;
  const attributes = { groups: layers.normNumGroups, eps: GROUP_NORM_EPS, activation: 'none' } as const;
  const h = groupNorm(layers, x, `${name}.norm`, attributes);
  const projected = projectionOf(transformer)(layers, h, `${name}.proj_in`, inner);
  return beforeCross(layers, transformer, 0, projected);
}

/** Adds the rest of a transformer, whose input was x. */
function leave(
  layers: Layers,
  transformer: Transformer,
  x: Value,
  queried: Queried,
  crossAttention: CrossAttend,
): Value {
  let hidden = fromCross(layers, transformer, 0, queried, crossAttention);
  for (let i = 1; i < transformer.blocks; i++)
    hidden = fromCross(layers, transformer, i, beforeCross(layers, transformer, i, hidden), crossAttention);
  const projected = projectionOf(transformer)(layers, hidden, `${transformer.name}.proj_out`, x.shape[0]);
  return sum(layers, projected, x);
}

/** The state between two layers: the current value, and the skips that are not joined yet. */
interface Flow {
  readonly h: Value;
  readonly skips: readonly Value[];
}

/** Adds a layer that does not depend on the prompt. */
function step(
  layers: ResnetLayers,
  config: UNet2DConditionConfig,
  layer: Exclude<UNetLayer, Transformer>,
  { h, skips }: Flow,
): Flow {
  switch (layer.kind) {
    case 'keep':
      return { h, skips: [...skips, h] };
    case 'join':
      return {
        h: apply(layers.graph, 'concat', {}, { x0: h, x1: skips.at(-1) }),
        skips: skips.slice(0, -1),
      };
    case 'resnet':
      return { h: resnet(layers, h, layer.name, layer.to, { outputScale: layer.outputScale }), skips };
    case 'downsample':
      return { h: downsample(layers, h, layer.name, config.downsamplePadding), skips };
    case 'upsample': {
      const [, , height, width] = skips.at(-1)!.shape;
      return { h: upsample(layers, h, layer.name, [height, width]), skips };
    }
    default:
      return layer satisfies never;
  }
}

/** Returns the layers before the first transformer, that transformer, and the layers after it. */
function cut(config: UNet2DConditionConfig) {
  const layers = unet2dConditionLayers(config);
  const at = layers.findIndex(({ kind }) => kind === 'transformer');
  return {
    before: layers.slice(0, at) as Exclude<UNetLayer, Transformer>[],
    transformer: layers[at] as Transformer,
    after: layers.slice(at + 1),
  };
}

/** Adds 2·x - 1. */
function centred(graph: Graph, x: Value): Value {
  const c = x.shape[0];
  const twice = Float32Array.from({ length: c * c }, (_, i) => (i % (c + 1) === 0 ? 2 : 0));
  const weight = table(`centring weight ${c}`, twice);
  const bias = table(`centring bias ${c}`, new Float32Array(c).fill(-1));
  return apply(graph, 'linear', { outChannels: c }, { x }, { weight, bias });
}

/**
 * Adds the part of the network that does not depend on the prompt: everything up to the first cross-attention, or only the
 * first convolution if the prompt is part of the embedding. Returns what the rest of the network needs, values of p
 * samples: the embedding of the time; the current value and the skips so far; and the query and the tokens of the first
 * transformer if it has begun.
 */
export function unet2dConditionShared(
  graph: Graph,
  parameters: Parameters,
  config: UNet2DConditionConfig,
  { sample, time }: SharedInputs,
): readonly Value[] {
  const { before, transformer } = cut(config);
  const { actFn: activation, timeEmbeddingDim: channels, addedEmbedding } = config;
  const mlp = { graph, parameters };
  const hiddenTime = linear(mlp, time, 'time_embedding.linear_1', channels, { activation });
  // The activation after the second layer is that of the resnets, which all apply it to the embedding.
  const embedding = linear(mlp, hiddenTime, 'time_embedding.linear_2', channels, {
    activation: addedEmbedding ? 'none' : activation,
  });
  const x = config.centerInputSample ? centred(graph, sample) : sample;
  const first = conv3x3(mlp, x, 'conv_in', config.blockOutChannels[0]!);
  if (addedEmbedding) return [embedding, first];
  const layers = resnetLayers(graph, parameters, config, embedding);
  let flow: Flow = { h: first, skips: [] };
  for (const layer of before) flow = step(layers, config, layer, flow);
  const { hidden, q } = enter(layers, transformer, flow.h);
  return [embedding, q, hidden, flow.h, ...flow.skips];
}

/** Adds act(embedding + MLP([pooled, size])), which is what every resnet projects. */
function withAdded(
  graph: Graph,
  parameters: Parameters,
  { timeEmbeddingDim: channels, actFn: activation }: UNet2DConditionConfig,
  embedding: Value,
  { pooled, size }: AddedInputs,
): Value {
  const mlp = { graph, parameters };
  const x = concatenate(graph, [pooled, size]);
  const hidden = linear(mlp, x, 'add_embedding.linear_1', channels, { activation: 'silu' });
  const added = linear(mlp, hidden, 'add_embedding.linear_2', channels);
  return apply(graph, 'activation', { activation }, { x: sum(mlp, added, embedding) });
}

/**
 * Adds the rest of the network and returns its output [outChannels, n, h, w]. Calls `crossAttention` once for every
 * entry of `crossAttentions`, in that order.
 */
export function unet2dCondition(
  graph: Graph,
  parameters: Parameters,
  config: UNet2DConditionConfig,
  { shared, crossAttention, added }: ConditionInputs,
): Value {
  const { before, transformer, after } = cut(config);
  const transform = (layers: ResnetLayers, layer: Transformer, x: Value, queried: Queried) =>
    leave(layers, layer, x, queried, crossAttention);
  let layers: ResnetLayers;
  let flow: Flow;
  let rest: readonly UNetLayer[];
  if (added) {
    const [time, h] = shared as readonly [Value, Value];
    layers = resnetLayers(graph, parameters, config, withAdded(graph, parameters, config, time, added));
    flow = { h, skips: [] };
    rest = [...before, transformer, ...after];
  } else {
    const [embedding, q, hidden, x, ...skips] = shared as readonly [Value, Value, Value, Value, ...Value[]];
    layers = resnetLayers(graph, parameters, config, embedding);
    flow = { h: transform(layers, transformer, x, { hidden, q }), skips };
    rest = after;
  }
  for (const layer of rest) {
    if (layer.kind !== 'transformer') flow = step(layers, config, layer, flow);
    else flow = { ...flow, h: transform(layers, layer, flow.h, enter(layers, layer, flow.h)) };
  }
  const attributes = { groups: config.normNumGroups, eps: config.normEps, activation: config.actFn };
  const normed = groupNorm(layers, flow.h, 'conv_norm_out', attributes);
  return conv3x3(layers, normed, 'conv_out', config.outChannels);
}

/** Returns the tensors of a UNet2DConditionModel, as diffusers names and shapes them. */
export const unet2dConditionTensors = (config: UNet2DConditionConfig): readonly ExpectedTensor[] =>
  recordTensors(({ graph, parameters }) => {
    const side = 2 ** (config.blockOutChannels.length - 1);
    const context = input(graph, 'context', [config.crossAttentionDim, 1, 1, 1]);
    const shared = unet2dConditionShared(graph, parameters, config, {
      sample: input(graph, 'sample', [config.inChannels, 1, side, side]),
      time: input(graph, 'time', [timeRowLength(config), 1, 1, 1]),
    });
    const crossAttention: CrossAttend = (name, inner) =>
      keysAndValues(graph, parameters, { name, inner }, context);
    const { addedEmbedding } = config;
    const added = addedEmbedding && {
      pooled: input(graph, 'pooled', [addedEmbedding.pooledDim, 1, 1, 1]),
      size: input(graph, 'size', [SIZE_NUMBERS * addedEmbedding.sizeDim, 1, 1, 1]),
    };
    unet2dCondition(graph, parameters, config, { shared, crossAttention, added });
  });
