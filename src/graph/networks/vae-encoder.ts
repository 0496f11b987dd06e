// The encoder of diffusers' AutoencoderKL as a graph: from images to the latents of latent diffusion (Rombach et al. 2022,
// "High-Resolution Image Synthesis with Latent Diffusion Models").

import { apply, type Graph, input } from '../core/graph.ts';
import type { ExpectedTensor } from '../files/expected-tensors.ts';
import { type Parameters, parametersOf } from '../files/parameters.ts';
import type { TensorFile, TensorInfo } from '../files/safetensors.ts';
import { type Constant, derived, type Value } from '../ops/value.ts';
import { conv3x3, groupNorm, recordTensors, weightAndBias } from './layers.ts';
import { attentionBlock, downsample, type ResnetLayers, resnet } from './resnet.ts';
import { type VaeEncoderConfig, vaeDownscale } from './vae-encoder-config.ts';

/** The epsilon of every group norm; diffusers fixes it for autoencoders. */
const EPS = 1e-6;

const attention = 'encoder.mid_block.attentions.0';

/** Subtracts a number from a bias, and so from the output of the layer that the bias belongs to. */
const less = (bias: Constant, number: number): Constant =>
  number === 0 ? bias : derived(bias, `- ${number}`, (values) => values.map((value) => value - number));

/**
 * Adds the encoder to the graph. `image` is [3, n, h, w] in [-1, 1]. Returns latents [latentChannels, n, h / f, w / f],
 * f = `vaeDownscale(config)`: (mean - shift)·scale, with the mean of the posterior. Nothing is sampled.
 */
export function vaeEncoder(
  graph: Graph,
  parameters: Parameters,
  config: VaeEncoderConfig,
  image: Value,
): Value {
  const { normNumGroups, actFn: activation, scalingFactor: scale } = config;
  const layers: ResnetLayers = {
    graph,
    parameters,
    normNumGroups,
    normEps: EPS,
    activation,
    scaleShift: false,
  };
  const widths = config.blockOutChannels;
  const last = widths.at(-1)!;
  let h = conv3x3(layers, image, 'encoder.conv_in', widths[0]!);
  for (const [i, width] of widths.entries()) {
    const block = `encoder.down_blocks.${i}`;
    for (let j = 0; j < config.layersPerBlock; j++) h = resnet(layers, h, `${block}.resnets.${j}`, width);
    if (i < widths.length - 1) h = downsample(layers, h, `${block}.downsamplers.0.conv`, 0);
  }
  h = resnet(layers, h, 'encoder.mid_block.resnets.0', last);
  if (config.midBlockAddAttention)
    h = attentionBlock(layers, h, attention, { heads: 1, headDim: last }, { groups: normNumGroups });
  h = resnet(layers, h, 'encoder.mid_block.resnets.1', last);
  h = groupNorm(layers, h, 'encoder.conv_norm_out', { groups: normNumGroups, eps: EPS, activation: 'silu' });

  // The last layer computes mean and log variance; the shift and the scaling factor are part of it.
  const { latentChannels } = config;
  const outChannels = 2 * latentChannels;
  const final = (name: string, inChannels: number, side: number) => {
    const { weight, bias } = weightAndBias(layers, name, [outChannels, inChannels, side, side]);
    return { weight, bias: less(bias, config.shiftFactor) };
  };
  let moments: Value;
  if (config.useQuantConv) {
    h = conv3x3(layers, h, 'encoder.conv_out', outChannels);
    const constants = final('quant_conv', outChannels, 1);
    moments = apply(graph, 'linear', { outChannels, scale }, { x: h }, constants);
  } else {
    const attributes = { outChannels, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1], scale } as const;
    moments = apply(graph, 'conv2d', attributes, { x: h }, final('encoder.conv_out', last, 3));
  }
  return apply(graph, 'slice', { from: 0, count: latentChannels }, { x: moments });
}

/** Returns the tensors of the encoder: `encoder` and `quant_conv` of diffusers' AutoencoderKL. */
export const vaeEncoderTensors = (config: VaeEncoderConfig): readonly ExpectedTensor[] =>
  recordTensors(({ graph, parameters }) => {
    const side = vaeDownscale(config);
    vaeEncoder(graph, parameters, config, input(graph, 'image', [3, 1, side, side]));
  });

/** Matches the tensors of the decoder, which are not checked. */
const decoder = /^(?:decoder|post_quant_conv)\./;

/** Returns the matrices of the attention as such: the oldest checkpoints hold them as 1x1 convolutions of equal values. */
function asMatrix(info: TensorInfo): TensorInfo {
  const { name, shape } = info;
  const isConv1x1 = shape.length === 4 && shape[2] === 1 && shape[3] === 1;
  return isConv1x1 && name.startsWith(`${attention}.`) ? { ...info, shape: shape.slice(0, 2) } : info;
}

/**
 * Returns the parameters of the encoder in a file that may hold any decoder too.
 * @throws ModelError if the rest of the file is not exactly the encoder, naming the first few tensors concerned.
 */
export function vaeEncoderParameters(file: TensorFile, config: VaeEncoderConfig): Parameters {
  const tensors = new Map(
    [...file.tensors]
      .filter(([name]) => !decoder.test(name))
      .map(([name, info]) => [name, asMatrix(info)] as const),
  );
  return parametersOf({ ...file, tensors }, vaeEncoderTensors(config));
}
