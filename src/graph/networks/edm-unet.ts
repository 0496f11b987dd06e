// EDM's UNets as a graph: ddpm++ (Song et al. 2021) and ADM (Dhariwal and Nichol 2021) in the versions of Karras et al.
// (2022). They differ in how the embedding is computed, where it enters a block, and how a block's sums are scaled.

import { ModelError } from '../../errors.ts';
import { apply, type Graph, input } from '../core/graph.ts';
import type { ExpectedTensor } from '../files/expected-tensors.ts';
import { type Parameters, parametersOf } from '../files/parameters.ts';
import type { TensorFile } from '../files/safetensors.ts';
import { type Constant, derived, type Value } from '../ops/value.ts';
import { type EdmBlock, edmBlocks } from './edm-blocks.ts';
import { type EdmConfig, normGroups } from './edm-config.ts';
import {
  conv1x1,
  conv3x3,
  groupNorm,
  type Layers,
  linear,
  projections,
  recordTensors,
  thirds,
  weightAndBias,
} from './layers.ts';

interface EdmInputs {
  /** x_t [imgChannels, n, h, w], before any scaling. */
  readonly sample: Value;
  /** Rows c_in, which multiply the sample, then rows 0, which are added to it: [2·imgChannels, n, 1, 1]. */
  readonly scale: Value;
  /** Rows of `noiseRows` [noise width, n, 1, 1]. */
  readonly noise: Value;
  /** Rows of `labelRows` [labelDim, n, 1, 1], if the network is class-conditional. */
  readonly label?: Value | undefined;
}

/** Returns the channels of the embedding that every block projects, and of the sinusoids of the noise level. */
const embeddingWidths = ({ modelChannels, channelMultEmb, channelMultNoise }: EdmConfig) => ({
  embedding: modelChannels * channelMultEmb,
  noise: modelChannels * channelMultNoise,
});

/**
 * Returns the sinusoids of c_noise = ln(sigma) / 4, one row per sigma, with frequencies from 1 down to 1/10000. A SongUNet
 * has the sines first, and its last frequency is 1/10000; a DhariwalUNet has the cosines first, and its last frequency is
 * one step above 1/10000.
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
 * Returns the network's input for each of labelDim classes, one row per class, and a last row of zeros for no class. The
 * rows are one-hot; those of a SongUNet are multiplied by sqrt(labelDim).
 */
export function labelRows({ modelType, labelDim }: EdmConfig): Float32Array {
  const rows = new Float32Array((labelDim + 1) * labelDim);
  const one = modelType === 'SongUNet' ? Math.sqrt(labelDim) : 1;
  for (let i = 0; i < labelDim; i++) rows[i * labelDim + i] = one;
  return rows;
}

/** Adds silu(embedding) [embedding width, n, 1, 1], which every block projects. */
function embed(layers: Layers, config: EdmConfig, { noise, label }: EdmInputs): Value {
  const { graph } = layers;
  const { embedding, noise: noiseWidth } = embeddingWidths(config);
  const sum = (x1: Value, x2: Value) => apply(graph, 'add', {}, { x1, x2 });
  const layer = (k: 0 | 1, x: Value, activation: 'silu' | 'none' = 'silu') =>
    linear(layers, x, `model.map_layer${k}`, embedding, { activation });
  if (config.modelType === 'SongUNet') {
    const x = label ? sum(noise, linear(layers, label, 'model.map_label', noiseWidth)) : noise;
    return layer(1, layer(0, x));
  }
  const hidden = layer(0, noise);
  if (!label) return layer(1, hidden);
  const ofLabel = projections(layers, label, ['model.map_label'], embedding, { bias: false });
  const x = sum(layer(1, hidden, 'none'), ofLabel);
  return apply(graph, 'activation', { activation: 'silu' }, { x });
}

/** Reorders the rows of a weight or bias from q, k, v of each channel in turn to all q, then all k, then all v. */
const separated = (of: Constant, channels: number): Constant =>
  derived(of, 'q, k, v apart', (values) => {
    const width = values.length / (3 * channels);
    const reordered = new Float32Array(values.length);
    for (let part = 0; part < 3; part++)
      for (let channel = 0; channel < channels; channel++) {
        const row = values.subarray((3 * channel + part) * width, (3 * channel + part + 1) * width);
        reordered.set(row, (part * channels + channel) * width);
      }
    return reordered;
  });

/** Adds proj(attention(qkv(x))) of the pixels to each other. */
function attention(layers: Layers, x: Value, name: string, heads: number): Value {
  const { graph } = layers;
  const [channels] = x.shape;
  const { weight, bias } = weightAndBias(layers, `${name}.qkv`, [3 * channels, channels, 1, 1]);
  const constants = { weight: separated(weight, channels), bias: separated(bias, channels) };
  const qkv = apply(graph, 'linear', { outChannels: 3 * channels }, { x }, constants);
  const [q, k, v] = thirds(layers, qkv);
  const scale = 1 / Math.sqrt(channels / heads);
  return conv1x1(layers, apply(graph, 'attention', { heads, scale }, { q, k, v }), `${name}.proj`, channels);
}

const normAttributes = ({ modelType }: EdmConfig, channels: number, activation: 'silu' | 'none') => ({
  groups: normGroups(channels),
  eps: modelType === 'SongUNet' ? 1e-6 : 1e-5,
  activation,
});

/** Adds norm, silu, (resample), conv, embedding, norm, silu, conv; plus the skip; plus attention. */
function block(
  layers: Layers,
  config: EdmConfig,
  x: Value,
  module: EdmBlock,
  name: string,
  embedding: Value,
): Value {
  const { graph } = layers;
  const { from, to, resample, heads } = module;
  const isSong = config.modelType === 'SongUNet';
  const norm = (value: Value, of: string, activation: 'silu' | 'none', rows?: Value) =>
    groupNorm(layers, value, `${name}.${of}`, normAttributes(config, value.shape[0], activation), rows);
  const resampled = (value: Value) =>
    resample ? apply(graph, resample === 'up' ? 'upsample' : 'averagePool', {}, { x: value }) : value;
  const sum = (x1: Value, x2: Value) =>
    apply(graph, 'add', isSong ? { scale: Math.SQRT1_2 } : {}, { x1, x2 });

  const rows = linear(layers, embedding, `${name}.affine`, isSong ? to : 2 * to);
  let h = conv3x3(layers, resampled(norm(x, 'norm0', 'silu')), `${name}.conv0`, to);
  if (isSong) h = apply(graph, 'addRows', {}, { x: h, embedding: rows });
  h = norm(h, 'norm1', 'silu', isSong ? undefined : rows);
  let skip = resampled(x);
  // A SongUNet projects the skip of every block that resamples, also if the channels stay the same.
  if (from !== to || (resample && isSong)) skip = conv1x1(layers, skip, `${name}.skip`, to);
  h = sum(conv3x3(layers, h, `${name}.conv1`, to), skip);
  return heads ? sum(attention(layers, norm(h, 'norm2', 'none'), name, heads), h) : h;
}

/**
 * Adds F(c_in·x; c_noise, label) to the graph and returns it: [imgChannels, n, h, w]. A multi-head network returns the
 * channels of all its heads, one head after the other.
 */
export function edmUNet(graph: Graph, parameters: Parameters, config: EdmConfig, inputs: EdmInputs): Value {
  const layers: Layers = { graph, parameters };
  const isSong = config.modelType === 'SongUNet';
  const embedding = embed(layers, config, inputs);
  const { encoder, decoder } = edmBlocks(config);
  const skips: Value[] = [];
  let h = inputs.sample;
  for (const module of encoder) {
    const name = `model.enc.${module.name}`;
    h =
      module.heads === undefined
        ? conv3x3(layers, h, name, module.to, inputs.scale)
        : block(layers, config, h, module, name, embedding);
    skips.push(h);
  }
  for (const module of decoder) {
    const x = module.joins ? apply(graph, 'concat', {}, { x0: h, x1: skips.pop() }) : h;
    h = block(layers, config, x, module, `model.dec.${module.name}`, embedding);
  }
  const last = `model.dec.${config.imgResolution}x${config.imgResolution}_aux`;
  const [outNorm, outConv] = isSong ? [`${last}_norm`, `${last}_conv`] : ['model.out_norm', 'model.out_conv'];
  const attributes = normAttributes(config, h.shape[0], 'silu');
  const outChannels = (config.heads ?? 1) * config.imgChannels;
  return conv3x3(layers, groupNorm(layers, h, outNorm, attributes), outConv, outChannels);
}

/** Returns the tensors of an EDM network by the names of EDMPrecond's state, without the resampling filters. */
export const edmTensors = (config: EdmConfig): readonly ExpectedTensor[] =>
  recordTensors(({ graph, parameters }) => {
    const { imgChannels, labelDim, augmentDim } = config;
    const { noise } = embeddingWidths(config);
    const side = 2 ** (config.channelMult.length - 1);
    // The graph does not read this weight: augmentation labels are used in training only, and 0 otherwise.
    if (augmentDim > 0) parameters('model.map_augment.weight', [noise, augmentDim]);
    edmUNet(graph, parameters, config, {
      sample: input(graph, 'sample', [imgChannels, 1, side, side]),
      scale: input(graph, 'scale', [2 * imgChannels, 1, 1, 1]),
      noise: input(graph, 'noise', [noise, 1, 1, 1]),
      ...(labelDim > 0 ? { label: input(graph, 'label', [labelDim, 1, 1, 1]) } : {}),
    });
  });

/**
 * Returns the parameters of an EDM network. The file may also hold the filters of its resampling, which EDM saves but
 * which are no weights.
 * @throws ModelError if the file does not hold the network's tensors, or if a filter is not the mean of 2x2 pixels.
 */
export async function edmParameters(file: TensorFile, config: EdmConfig): Promise<Parameters> {
  const tensors = new Map(file.tensors);
  const { encoder, decoder } = edmBlocks(config);
  const resampling = (part: string, blocks: readonly EdmBlock[]) =>
    blocks.filter(({ resample }) => resample).map(({ name }) => `model.${part}.${name}`);
  for (const block of [...resampling('enc', encoder), ...resampling('dec', decoder)])
    for (const layer of ['conv0', 'skip']) {
      const filter = `${block}.${layer}.resample_filter`;
      const shape = tensors.get(filter)?.shape;
      if (!shape) continue;
      if (shape.join() !== '1,1,2,2')
        throw new ModelError(
          `${file.path}: wrong shape "${filter}": expected [1, 1, 2, 2], got [${shape.join(', ')}]`,
        );
      const values = await file.readF32(filter);
      if (values.some((value) => value !== 0.25))
        throw new ModelError(
          `${file.path}: expected "${filter}" to be the mean of 2x2 pixels, got [${values.join(', ')}]`,
        );
      tensors.delete(filter);
    }
  return parametersOf({ ...file, tensors }, edmTensors(config));
}
