// EDM's UNets as a graph: ddpm++ (Song et al. 2021) and ADM (Dhariwal and Nichol 2021) as Karras et al. (2022) have
// them, which differ in how the embedding is made, where it enters a block, and how a block's sums are scaled.

import { apply, type Graph } from '../core/graph.ts';
import type { Parameters } from '../files/parameters.ts';
import { type Constant, derived, type Value } from '../ops/value.ts';
import { type EdmBlock, edmBlocks } from './edm-blocks.ts';
import { type EdmConfig, normGroups } from './edm-config.ts';
import { embeddingWidths, outputNames, skipProjects } from './edm-tensors.ts';
import { conv3x3, groupNorm, type Layers, linear, weightAndBias } from './layers.ts';

export interface EdmInputs {
  /** x_t [imgChannels, n, h, w], before any scaling. */
  readonly sample: Value;
  /** Rows c_in, then 0, that the sample is multiplied by and shifted by: [2·imgChannels, n, 1, 1]. */
  readonly scale: Value;
  /** Rows of `noiseRows` [noise width, n, 1, 1]. */
  readonly noise: Value;
  /** Rows of `labelRows` [labelDim, n, 1, 1], for a network of classes. */
  readonly label?: Value | undefined;
}

/**
 * The embedding's sinusoids of c_noise = ln(sigma) / 4, a row for each sigma: frequencies from 1 down to 1/10000. A
 * SongUNet takes sines first, and the last frequency is 1/10000 itself; a DhariwalUNet cosines, and ends just before.
 */
export function noiseRows(config: EdmConfig, sigmas: readonly number[]): Float32Array {
  const { noise: width } = embeddingWidths(config);
  const half = width / 2;
  const isSong = config.modelType === 'SongUNet';
  const rows = new Float32Array(sigmas.length * width);
  sigmas.forEach((sigma, k) => {
    for (let i = 0; i < half; i++) {
      const angle = (Math.log(sigma) / 4) * 10000 ** (-i / (isSong ? half - 1 : half));
      rows[k * width + i + (isSong ? 0 : half)] = Math.sin(angle);
      rows[k * width + i + (isSong ? half : 0)] = Math.cos(angle);
    }
  });
  return rows;
}

/**
 * What the network is told of a class, a row for each of labelDim classes and a last one, all 0, for none. A SongUNet
 * takes one-hot rows times sqrt(labelDim).
 */
export function labelRows({ modelType, labelDim }: EdmConfig): Float32Array {
  const rows = new Float32Array((labelDim + 1) * labelDim);
  const one = modelType === 'SongUNet' ? Math.sqrt(labelDim) : 1;
  for (let i = 0; i < labelDim; i++) rows[i * labelDim + i] = one;
  return rows;
}

/** act of the embedding [embedding width, n, 1, 1] that every block projects. */
function embed(layers: Layers, config: EdmConfig, { noise, label }: EdmInputs): Value {
  const { graph, parameters } = layers;
  const sum = (x1: Value, x2: Value) => apply(graph, 'add', {}, { x1, x2 });
  if (config.modelType === 'SongUNet') {
    const x = label ? sum(noise, linear(layers, label, 'model.map_label')) : noise;
    return linear(layers, linear(layers, x, 'model.map_layer0', 'silu'), 'model.map_layer1', 'silu');
  }
  const hidden = linear(layers, noise, 'model.map_layer0', 'silu');
  if (!label) return linear(layers, hidden, 'model.map_layer1', 'silu');
  const { embedding } = embeddingWidths(config);
  const weight = parameters('model.map_label.weight');
  const ofLabel = apply(graph, 'linear', { outChannels: embedding }, { x: label }, { weight });
  const x = sum(linear(layers, hidden, 'model.map_layer1'), ofLabel);
  return apply(graph, 'activation', { activation: 'silu' }, { x });
}

/** Rows of a weight or bias that come as q, k, v of a channel, q, k, v of the next: all q, then all k, then all v. */
const apart = (of: Constant, channels: number): Constant =>
  derived(of, 'q, k, v apart', (values) => {
    const width = values.length / (3 * channels);
    const made = new Float32Array(values.length);
    for (let part = 0; part < 3; part++)
      for (let channel = 0; channel < channels; channel++) {
        const row = values.subarray((3 * channel + part) * width, (3 * channel + part + 1) * width);
        made.set(row, (part * channels + channel) * width);
      }
    return made;
  });

/** proj(attention(qkv(x))) of pixels to each other. */
function attention(layers: Layers, x: Value, name: string, heads: number): Value {
  const { graph, parameters } = layers;
  const [channels] = x.shape;
  const { weight, bias } = weightAndBias(parameters, `${name}.qkv`);
  const constants = { weight: apart(weight, channels), bias: apart(bias, channels) };
  const qkv = apply(graph, 'linear', { outChannels: 3 * channels }, { x }, constants);
  const part = (i: number) => apply(graph, 'slice', { from: i * channels, count: channels }, { x: qkv });
  const inputs = { q: part(0), k: part(1), v: part(2) };
  const scale = 1 / Math.sqrt(channels / heads);
  return linear(layers, apply(graph, 'attention', { heads, scale }, inputs), `${name}.proj`);
}

/** norm, silu, (resample), conv, embedding, norm, silu, conv; plus the skip; plus attention. */
function block(
  layers: Layers,
  config: EdmConfig,
  x: Value,
  made: EdmBlock,
  name: string,
  embedding: Value,
): Value {
  const { graph } = layers;
  const { resample, heads } = made;
  const isSong = config.modelType === 'SongUNet';
  const norm = (value: Value, of: string, activation: 'silu' | 'none', rows?: Value) => {
    const attributes = { groups: normGroups(value.shape[0]), eps: isSong ? 1e-6 : 1e-5, activation };
    return groupNorm(layers, value, `${name}.${of}`, attributes, rows);
  };
  const resampled = (value: Value) =>
    resample ? apply(graph, resample === 'up' ? 'upsample' : 'averagePool', {}, { x: value }) : value;
  const sum = (x1: Value, x2: Value) =>
    apply(graph, 'add', isSong ? { scale: Math.SQRT1_2 } : {}, { x1, x2 });

  const rows = linear(layers, embedding, `${name}.affine`);
  let h = conv3x3(layers, resampled(norm(x, 'norm0', 'silu')), `${name}.conv0`);
  if (isSong) h = apply(graph, 'addRows', {}, { x: h, embedding: rows });
  h = norm(h, 'norm1', 'silu', isSong ? undefined : rows);
  let skip = resampled(x);
  if (skipProjects(config, made)) skip = linear(layers, skip, `${name}.skip`);
  h = sum(conv3x3(layers, h, `${name}.conv1`), skip);
  return heads ? sum(attention(layers, norm(h, 'norm2', 'none'), name, heads), h) : h;
}

/** Adds F(c_in x; c_noise, label) to the graph and returns it: [imgChannels, n, h, w], of every head in turn where there are heads. */
export function edmUNet(graph: Graph, parameters: Parameters, config: EdmConfig, inputs: EdmInputs): Value {
  const layers: Layers = { graph, parameters };
  const isSong = config.modelType === 'SongUNet';
  const embedding = embed(layers, config, inputs);
  const { encoder, decoder, channels } = edmBlocks(config);
  const skips: Value[] = [];
  let h = inputs.sample;
  for (const made of encoder) {
    const name = `model.enc.${made.name}`;
    h =
      made.heads === undefined
        ? conv3x3(layers, h, name, inputs.scale)
        : block(layers, config, h, made, name, embedding);
    skips.push(h);
  }
  for (const made of decoder) {
    const x = made.joins ? apply(graph, 'concat', {}, { x0: h, x1: skips.pop() }) : h;
    h = block(layers, config, x, made, `model.dec.${made.name}`, embedding);
  }
  const { outNorm, outConv } = outputNames(config.modelType, config.imgResolution);
  const attributes = { groups: normGroups(channels), eps: isSong ? 1e-6 : 1e-5, activation: 'silu' } as const;
  return conv3x3(layers, groupNorm(layers, h, outNorm, attributes), outConv);
}
