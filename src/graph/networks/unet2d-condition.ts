// diffusers' UNet2DConditionModel as a graph, the network of Stable Diffusion 1.x and 2.x (Rombach et al. 2022,
// "High-Resolution Image Synthesis with Latent Diffusion Models"), cut in two at its first cross-attention: what
// stands in front of it depends on the noised latent and the time, and is the same for every prompt.

import { apply, type Graph } from '../core/graph.ts';
import type { Parameters } from '../files/parameters.ts';
import type { Constant, Value } from '../ops/value.ts';
import {
  attend,
  conv3x3,
  groupNorm,
  type Layers,
  layerNorm,
  linear,
  linearHalf,
  projections,
  selfAttention,
} from './layers.ts';
import { downsample, type ResnetLayers, resnet, upsample } from './resnet.ts';
import type { UNet2DConditionConfig } from './unet2d-condition-config.ts';
import { type Layer, type Transformer, unet2dConditionLayers } from './unet2d-condition-layers.ts';

/** A cross-attention by the name of its tensors, with the channels of its keys and of its values. */
export interface CrossAttention {
  readonly name: string;
  readonly inner: number;
}

/** What a prompt is to one cross-attention: [inner, n, tokens, 1] each. */
export interface KeysAndValues {
  readonly k: Value;
  readonly v: Value;
}

/** The cross-attention with these keys and values for each of n samples. */
export type CrossAttend = (name: string, inner: number) => KeysAndValues;

export interface SharedInputs {
  /** x_t [inChannels, p, h, w]. */
  readonly sample: Value;
  /** Rows of `timeRows` [dim, p, 1, 1]. */
  readonly time: Value;
}

export interface ConditionInputs {
  /** What `unet2dConditionShared` returned, each repeated to n samples. */
  readonly shared: readonly Value[];
  readonly crossAttention: CrossAttend;
}

const GROUP_NORM_EPS = 1e-6;
const LAYER_NORM_EPS = 1e-5;

const blockOf = ({ name }: Transformer, i: number): string => `${name}.transformer_blocks.${i}`;

/** Every cross-attention of the network, in the order in which they run. */
export const crossAttentions = (config: UNet2DConditionConfig): readonly CrossAttention[] =>
  unet2dConditionLayers(config).flatMap((layer) =>
    layer.kind !== 'transformer'
      ? []
      : Array.from({ length: layer.blocks }, (_, i) =>
          layer.crossed.map((k) => ({ name: `${blockOf(layer, i)}.attn${k}`, inner: layer.inner })),
        ).flat(),
  );

/** The keys and values of a cross-attention for encoded prompts, `context` [crossAttentionDim, n, tokens, 1]. */
export function keysAndValues(
  graph: Graph,
  parameters: Parameters,
  { name, inner }: CrossAttention,
  context: Value,
): KeysAndValues {
  const project = (part: string) =>
    projections({ graph, parameters }, context, [`${name}.${part}`], inner, false);
  return { k: project('to_k'), v: project('to_v') };
}

const sum = ({ graph }: Layers, x1: Value, x2: Value): Value => apply(graph, 'add', {}, { x1, x2 });

/** Where a transformer block stands before it looks at the prompt: its tokens, and what they ask. */
interface Question {
  readonly hidden: Value;
  readonly q: Value;
}

/** What the tokens ask in attention number k of block i. */
function ask(layers: Layers, transformer: Transformer, i: number, k: 1 | 2, hidden: Value): Question {
  const block = blockOf(transformer, i);
  const h = layerNorm(layers, hidden, `${block}.norm${k}`, LAYER_NORM_EPS);
  return { hidden, q: projections(layers, h, [`${block}.attn${k}.to_q`], transformer.inner, false) };
}

/** Block i up to its first look at the prompt. */
function beforeCross(layers: Layers, transformer: Transformer, i: number, hidden: Value): Question {
  const [first] = transformer.crossed;
  if (first === 1) return ask(layers, transformer, i, 1, hidden);
  const block = blockOf(transformer, i);
  const h = layerNorm(layers, hidden, `${block}.norm1`, LAYER_NORM_EPS);
  const attended = selfAttention(layers, h, `${block}.attn1`, { ...transformer, bias: false });
  return ask(layers, transformer, i, 2, sum(layers, attended, hidden));
}

/** Block i from its first look at the prompt on. */
function fromCross(
  layers: Layers,
  transformer: Transformer,
  i: number,
  question: Question,
  crossAttention: CrossAttend,
): Value {
  const block = blockOf(transformer, i);
  let { hidden, q } = question;
  for (const [j, k] of transformer.crossed.entries()) {
    if (j > 0) ({ q } = ask(layers, transformer, i, k, hidden));
    const name = `${block}.attn${k}`;
    const attended = attend(layers, name, transformer, { q, ...crossAttention(name, transformer.inner) });
    hidden = sum(layers, attended, hidden);
  }
  const h = layerNorm(layers, hidden, `${block}.norm3`, LAYER_NORM_EPS);
  const half = (i: 0 | 1) => linearHalf(layers, h, `${block}.ff.net.0.proj`, i);
  const gated = apply(layers.graph, 'geglu', {}, { x1: half(0), x2: half(1) });
  return sum(layers, linear(layers, gated, `${block}.ff.net.2`), hidden);
}

/** A transformer up to its first look at the prompt. */
function enter(layers: ResnetLayers, transformer: Transformer, x: Value): Question {
  const { name } = transformer;
  const attributes = { groups: layers.normNumGroups, eps: GROUP_NORM_EPS, activation: 'none' } as const;
  const h = groupNorm(layers, x, `${name}.norm`, attributes);
  return beforeCross(layers, transformer, 0, linear(layers, h, `${name}.proj_in`));
}

/** The rest of a transformer, whose input was x. */
function leave(
  layers: Layers,
  transformer: Transformer,
  x: Value,
  question: Question,
  crossAttention: CrossAttend,
): Value {
  let hidden = fromCross(layers, transformer, 0, question, crossAttention);
  for (let i = 1; i < transformer.blocks; i++)
    hidden = fromCross(layers, transformer, i, beforeCross(layers, transformer, i, hidden), crossAttention);
  return sum(layers, linear(layers, hidden, `${transformer.name}.proj_out`), x);
}

/** What flows through the network: the value at hand, and the skips that wait. */
interface Flow {
  readonly h: Value;
  readonly skips: readonly Value[];
}

/** A layer that asks nothing of the prompt. */
function step(
  layers: ResnetLayers,
  config: UNet2DConditionConfig,
  layer: Exclude<Layer, Transformer>,
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
      return { h: resnet(layers, h, layer.name, { outputScale: layer.outputScale }), skips };
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

const resnetLayers = (
  graph: Graph,
  parameters: Parameters,
  { normNumGroups, normEps, actFn, resnetTimeScaleShift }: UNet2DConditionConfig,
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

/** The layers in front of the first transformer, that transformer, and those behind it. */
function cut(config: UNet2DConditionConfig) {
  const layers = unet2dConditionLayers(config);
  const at = layers.findIndex(({ kind }) => kind === 'transformer');
  return {
    before: layers.slice(0, at) as Exclude<Layer, Transformer>[],
    transformer: layers[at] as Transformer,
    after: layers.slice(at + 1),
  };
}

/** 2 x - 1. */
function centred(graph: Graph, x: Value): Value {
  const c = x.shape[0];
  const constant = (name: string, values: readonly number[]): Constant => ({
    name: `centring ${name} ${c}`,
    length: values.length,
    values: async () => Float32Array.from(values),
  });
  const weight = Array.from({ length: c * c }, (_, i) => (i % (c + 1) === 0 ? 2 : 0));
  const constants = {
    weight: constant('weight', weight),
    bias: constant(
      'bias',
      weight.slice(0, c).map(() => -1),
    ),
  };
  return apply(graph, 'linear', { outChannels: c }, { x }, constants);
}

/**
 * Adds to the graph what no prompt has a say in: everything up to the first cross-attention. Returned is what the
 * rest of the network needs, values of p samples: the embedding of the time, the first transformer's query, tokens
 * and input, and the skips so far.
 */
export function unet2dConditionShared(
  graph: Graph,
  parameters: Parameters,
  config: UNet2DConditionConfig,
  { sample, time }: SharedInputs,
): readonly Value[] {
  const { before, transformer } = cut(config);
  const mlp = { graph, parameters };
  const embedding = linear(
    mlp,
    linear(mlp, time, 'time_embedding.linear_1', config.actFn),
    'time_embedding.linear_2',
    config.actFn, // the embedding is only ever used through this
  );
  const layers = resnetLayers(graph, parameters, config, embedding);
  const x = config.centerInputSample ? centred(graph, sample) : sample;
  let flow: Flow = { h: conv3x3(layers, x, 'conv_in'), skips: [] };
  for (const layer of before) flow = step(layers, config, layer, flow);
  const { hidden, q } = enter(layers, transformer, flow.h);
  return [embedding, q, hidden, flow.h, ...flow.skips];
}

/**
 * Adds the rest of the network and returns its output [outChannels, n, h, w]. `crossAttention` is asked for every
 * entry of `crossAttentions`, once and in that order.
 */
export function unet2dCondition(
  graph: Graph,
  parameters: Parameters,
  config: UNet2DConditionConfig,
  { shared, crossAttention }: ConditionInputs,
): Value {
  const { transformer, after } = cut(config);
  const [embedding, q, hidden, x, ...skips] = shared as readonly [Value, Value, Value, Value, ...Value[]];
  const layers = resnetLayers(graph, parameters, config, embedding);
  let flow: Flow = { h: leave(layers, transformer, x, { hidden, q }, crossAttention), skips };
  for (const layer of after) {
    if (layer.kind !== 'transformer') flow = step(layers, config, layer, flow);
    else {
      const question = enter(layers, layer, flow.h);
      flow = { ...flow, h: leave(layers, layer, flow.h, question, crossAttention) };
    }
  }
  const attributes = { groups: config.normNumGroups, eps: config.normEps, activation: config.actFn };
  return conv3x3(layers, groupNorm(layers, flow.h, 'conv_norm_out', attributes), 'conv_out');
}
