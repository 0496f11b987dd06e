// The encoder of diffusers' AutoencoderKL as a graph: from images to the latents that latent diffusion works on.
// (Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".)

import { apply, type Graph } from '../core/graph.ts';
import type { Parameters } from '../files/parameters.ts';
import type { Constant, Value } from '../ops/value.ts';
import { conv3x3, groupNorm, selfAttention, weightAndBias } from './layers.ts';
import { downsample, type ResnetLayers, resnet } from './resnet.ts';
import type { VaeEncoderConfig } from './vae-encoder-config.ts';

/** Of every group norm; diffusers fixes it for autoencoders. */
const EPS = 1e-6;

/** One head over all pixels: norm, q, k and v, attention, projection; plus the input. */
function attentionBlock(layers: ResnetLayers, x: Value, name: string): Value {
  const { normNumGroups: groups, normEps: eps } = layers;
  const h = groupNorm(layers, x, `${name}.group_norm`, { groups, eps, activation: 'none' });
  const out = selfAttention(layers, h, name, { heads: 1, headDim: x.shape[0], bias: true });
  return apply(layers.graph, 'add', {}, { x1: out, x2: x });
}

/** A bias with a number taken off, so that the layer it belongs to makes its result less that number. */
function less(bias: Constant, number: number): Constant {
  if (number === 0) return bias;
  const values = async () => (await bias.values()).map((value) => value - number);
  return { name: `${bias.name}-${number}`, length: bias.length, values };
}

/**
 * Adds the encoder to the graph. `image` is [3, n, h, w] in [-1, 1]; returned are latents
 * [latentChannels, n, h / f, w / f], f = `vaeDownscale(config)`: the mean of the posterior (nothing is sampled),
 * less the shift, times the scaling factor.
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
  let h = conv3x3(layers, image, 'encoder.conv_in');
  const last = config.blockOutChannels.length - 1;
  for (let i = 0; i <= last; i++) {
    const block = `encoder.down_blocks.${i}`;
    for (let j = 0; j < config.layersPerBlock; j++) h = resnet(layers, h, `${block}.resnets.${j}`);
    if (i < last) h = downsample(layers, h, `${block}.downsamplers.0.conv`, 0);
  }
  h = resnet(layers, h, 'encoder.mid_block.resnets.0');
  if (config.midBlockAddAttention) h = attentionBlock(layers, h, 'encoder.mid_block.attentions.0');
  h = resnet(layers, h, 'encoder.mid_block.resnets.1');
  h = groupNorm(layers, h, 'encoder.conv_norm_out', { groups: normNumGroups, eps: EPS, activation: 'silu' });

  // The last layer makes mean and log variance; it takes in the shift and the factor.
  const { latentChannels } = config;
  const outChannels = 2 * latentChannels;
  const final = (name: string) => {
    const { weight, bias } = weightAndBias(parameters, name);
    return { weight, bias: less(bias, config.shiftFactor) };
  };
  let moments: Value;
  if (config.useQuantConv) {
    h = conv3x3(layers, h, 'encoder.conv_out');
    moments = apply(graph, 'linear', { outChannels, scale }, { x: h }, final('quant_conv'));
  } else {
    const attributes = { outChannels, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1], scale } as const;
    moments = apply(graph, 'conv2d', attributes, { x: h }, final('encoder.conv_out'));
  }
  return apply(graph, 'slice', { from: 0, count: latentChannels }, { x: moments });
}
