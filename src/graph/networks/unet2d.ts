// diffusers' UNet2DModel as a graph: time and class embedding, down blocks, middle, up blocks with skips.
// (Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; scale_shift after Dhariwal and Nichol 2021.)

import type { Activation } from '../../kernels/activation.ts';
import type { Parameters } from '../files/parameters.ts';
import { apply, type Graph, type Value } from '../graph.ts';
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

/** What the layers share: the graph, the weights, and the numbers that hold for the whole network. */
interface Context {
  readonly graph: Graph;
  readonly parameters: Parameters;
  readonly config: UNet2DConfig;
  readonly activation: Activation;
  /** act(time + class embedding), which every resnet projects. */
  readonly embedding: Value;
}

const weightAndBias = (parameters: Parameters, name: string) => ({
  weight: parameters(`${name}.weight`),
  bias: parameters(`${name}.bias`),
});

function linear(
  { graph, parameters }: Pick<Context, 'graph' | 'parameters'>,
  x: Value,
  name: string,
  activation: Activation = 'none',
) {
  const { weight, bias } = weightAndBias(parameters, name);
  return apply(graph, 'linear', { outChannels: bias.length, activation }, { x }, { weight, bias });
}

function conv3x3({ graph, parameters }: Context, x: Value, name: string, affine?: Value): Value {
  const { weight, bias } = weightAndBias(parameters, name);
  const attributes = { outChannels: bias.length, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
  return apply(graph, 'conv2d', attributes, { x, affine }, { weight, bias });
}

function groupNorm(
  context: Context,
  x: Value,
  name: string,
  groups: number,
  activation: Activation,
  embedding?: Value,
): Value {
  const { graph, parameters, config } = context;
  const { weight: gamma, bias: beta } = weightAndBias(parameters, name);
  return apply(
    graph,
    'groupNorm',
    { groups, eps: config.normEps, activation },
    { x, embedding },
    { gamma, beta },
  );
}

/** ResnetBlock2D: norm, act, (resample), conv, embedding, norm, act, conv; plus the input. */
function resnet(
  context: Context,
  x: Value,
  name: string,
  resample?: 'upsample' | 'averagePool',
  outputScale = 1,
): Value {
  const { graph, parameters, config, activation, embedding } = context;
  const resampled = (value: Value) => (resample ? apply(graph, resample, {}, { x: value }) : value);
  const projected = linear(context, embedding, `${name}.time_emb_proj`);
  const scaleShift = config.resnetTimeScaleShift === 'scale_shift';

  let h = groupNorm(context, x, `${name}.norm1`, config.normNumGroups, activation);
  h = conv3x3(context, resampled(h), `${name}.conv1`);
  if (!scaleShift) h = apply(graph, 'addRows', {}, { x: h, embedding: projected });
  h = groupNorm(
    context,
    h,
    `${name}.norm2`,
    config.normNumGroups,
    activation,
    scaleShift ? projected : undefined,
  );

  let shortcut = resampled(x);
  if (h.shape[0] !== x.shape[0]) {
    const constants = weightAndBias(parameters, `${name}.conv_shortcut`);
    shortcut = apply(graph, 'linear', { outChannels: h.shape[0] }, { x: shortcut }, constants);
  }
  h = conv3x3(context, h, `${name}.conv2`);
  return apply(graph, 'add', { scale: 1 / outputScale }, { x1: h, x2: shortcut });
}

/** Attention over pixels: norm, one projection to q, k and v, heads, projection; plus the input. */
function attentionBlock(
  context: Context,
  x: Value,
  name: string,
  groups: number | undefined,
  outputScale = 1,
): Value {
  const { graph, parameters, config } = context;
  const { heads, headDim, inner } = attentionHeads(config, x.shape[0]);
  const h = groups === undefined ? x : groupNorm(context, x, `${name}.group_norm`, groups, 'none');
  const projections = ['to_q', 'to_k', 'to_v'].map((part) => `${name}.${part}`);
  const qkv = apply(
    graph,
    'linear',
    { outChannels: 3 * inner },
    { x: h },
    {
      weight: parameters(...projections.map((part) => `${part}.weight`)),
      bias: parameters(...projections.map((part) => `${part}.bias`)),
    },
  );
  const [q, k, v] = [0, 1, 2].map((i) =>
    apply(graph, 'slice', { from: i * inner, count: inner }, { x: qkv }),
  );
  const attended = apply(graph, 'attention', { heads, scale: 1 / Math.sqrt(headDim) }, { q, k, v });
  const out = linear(context, attended, `${name}.to_out.0`);
  return apply(graph, 'add', { scale: 1 / outputScale }, { x1: out, x2: x });
}

/** A strided 3x3 convolution; `downsample_padding` 0 pads below and to the right only. */
function downsample({ graph, parameters, config }: Context, x: Value, name: string): Value {
  const { weight, bias } = weightAndBias(parameters, name);
  const p = config.downsamplePadding;
  const padding = p === 0 ? ([0, 0, 1, 1] as const) : ([p, p, p, p] as const);
  return apply(
    graph,
    'conv2d',
    { outChannels: bias.length, kernel: [3, 3], stride: 2, padding },
    { x },
    { weight, bias },
  );
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
  const context = { graph, parameters };
  const mlp = (x: Value, name: string) =>
    linear(context, linear(context, x, `${name}.linear_1`, 'silu'), `${name}.linear_2`);
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
  const context: Context = { graph, parameters, config, activation, embedding };

  let h = conv3x3(context, inputs.sample, 'conv_in', inputs.centre);
  const skips = [h];
  config.downBlockTypes.forEach((type, i) => {
    const block = `down_blocks.${i}`;
    for (let j = 0; j < config.layersPerBlock; j++) {
      h = resnet(context, h, `${block}.resnets.${j}`);
      if (hasAttention(type))
        h = attentionBlock(context, h, `${block}.attentions.${j}`, config.normNumGroups);
      skips.push(h);
    }
    if (i === config.downBlockTypes.length - 1) return;
    h = resnetResampled(type, config.downsampleType)
      ? resnet(context, h, `${block}.downsamplers.0`, 'averagePool')
      : downsample(context, h, `${block}.downsamplers.0.conv`);
    skips.push(h);
  });

  if (config.midBlock) {
    const scale = config.midBlockScaleFactor;
    h = resnet(context, h, 'mid_block.resnets.0', undefined, scale);
    if (config.addAttention)
      h = attentionBlock(context, h, 'mid_block.attentions.0', config.midAttentionGroups, scale);
    h = resnet(context, h, 'mid_block.resnets.1', undefined, scale);
  }

  config.upBlockTypes.forEach((type, i) => {
    const block = `up_blocks.${i}`;
    for (let j = 0; j <= config.layersPerBlock; j++) {
      const skip = skips.pop();
      h = resnet(context, apply(graph, 'concat', {}, { x0: h, x1: skip }), `${block}.resnets.${j}`);
      if (hasAttention(type))
        h = attentionBlock(context, h, `${block}.attentions.${j}`, config.normNumGroups);
    }
    if (i === config.upBlockTypes.length - 1) return;
    h = resnetResampled(type, config.upsampleType)
      ? resnet(context, h, `${block}.upsamplers.0`, 'upsample')
      : conv3x3(context, apply(graph, 'upsample', {}, { x: h }), `${block}.upsamplers.0.conv`);
  });

  h = groupNorm(context, h, 'conv_norm_out', config.normNumGroups, 'silu');
  return conv3x3(context, h, 'conv_out');
}
