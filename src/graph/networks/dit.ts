// diffusers' DiTTransformer2DModel as a graph: patches of a latent pass through transformer blocks that are modulated by
// time and class, adaLN-Zero (Peebles and Xie 2023, "Scalable Diffusion Models with Transformers").

import { ShapeError } from '../../errors.ts';
import { apply, type Graph, input } from '../core/graph.ts';
import type { ExpectedTensor } from '../files/expected-tensors.ts';
import type { Parameters } from '../files/parameters.ts';
import type { Constant, Value } from '../ops/value.ts';
import type { DitConfig } from './dit-config.ts';
import { type Layers, linear, lookUp, recordTensors, selfAttention, weightAndBias } from './layers.ts';
import { TIME_ROW, timeRowLength } from './time-embedding.ts';

interface DitInputs {
  /** x_t [inChannels, n, h, w]; h and w are multiples of the patch size. */
  readonly sample: Value;
  /** Rows of `timeRows(TIME_ROW, ...)` [256, n, 1, 1]. */
  readonly time: Value;
  /** Index of the class [1, n, 1, 1]; an index equal to the number of classes stands for no class. */
  readonly label: Value;
}

/** The epsilon of every norm but the one before the MLP. */
const EPS = 1e-6;

/**
 * Returns the position embedding [channels, rows, columns]. The first half of the channels are sinusoids of the column,
 * the second half of the row; each half holds sines, then cosines. `base` is the side of the grid that the network was
 * trained on; the positions of another grid are spread over the same range. Rounds to f32 where diffusers does, so that
 * the values are equal.
 */
export function positionEmbedding(
  channels: number,
  [rows, columns]: readonly [rows: number, columns: number],
  base: number,
  interpolationScale: number,
): Float32Array {
  const quarter = channels / 4;
  const out = new Float32Array(channels * rows * columns);
  const position = (i: number, side: number) =>
    Math.fround(Math.fround(i / Math.fround(side / base)) / interpolationScale);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      for (let k = 0; k < channels; k++) {
        const half = k % (2 * quarter);
        const at = k < 2 * quarter ? position(column, columns) : position(row, rows);
        const angle = at / 10000 ** ((half % quarter) / quarter);
        out[(k * rows + row) * columns + column] = half < quarter ? Math.sin(angle) : Math.cos(angle);
      }
  return out;
}

/** Cuts the i-th `count` channels out of a modulation: its shifts, scales or gates. */
const part = ({ graph }: Layers, x: Value, i: number, count: number): Value =>
  apply(graph, 'slice', { from: i * count, count }, { x });

/** Adds silu(time embedding + class embedding) [width, n, 1, 1] of a block; every block has its own embedders. */
function conditioning(layers: Layers, config: DitConfig, { time, label }: DitInputs, name: string): Value {
  const { graph, parameters } = layers;
  const channels = widthOf(config);
  const embedder = `${name}.timestep_embedder`;
  const hidden = linear(layers, time, `${embedder}.linear_1`, channels, { activation: 'silu' });
  const timeEmbedding = linear(layers, hidden, `${embedder}.linear_2`, channels);
  const entries = config.numEmbedsAdaNorm + 1;
  const rows = parameters(`${name}.class_embedder.embedding_table.weight`, [entries, channels]);
  const classEmbedding = lookUp(graph, rows, entries, label);
  const sum = apply(graph, 'add', {}, { x1: timeEmbedding, x2: classEmbedding });
  return apply(graph, 'activation', { activation: 'silu' }, { x: sum });
}

/** Adds attention and an MLP. Each follows a modulated norm, and its result is added after multiplication by a gate. */
function block(layers: Layers, config: DitConfig, x: Value, condition: Value, name: string): Value {
  const { graph } = layers;
  const width = x.shape[0];
  const modulation = linear(layers, condition, `${name}.norm1.linear`, 6 * width);
  const [shift1, scale1, gate1, shift2, scale2, gate2] = [0, 1, 2, 3, 4, 5].map((i) =>
    part(layers, modulation, i, width),
  );
  let h = apply(graph, 'layerNorm', { eps: EPS }, { x, scale: scale1, shift: shift1 });
  h = selfAttention(layers, h, `${name}.attn1`, {
    heads: config.numAttentionHeads,
    headDim: config.attentionHeadDim,
    bias: config.attentionBias,
  });
  const attended = apply(graph, 'gatedAdd', {}, { x1: x, x2: h, gate: gate1 });

  const { weight: gamma, bias: beta } = config.normElementwiseAffine
    ? weightAndBias(layers, `${name}.norm3`, [width])
    : { weight: undefined, bias: undefined };
  const attributes = { eps: config.normEps };
  h = apply(graph, 'layerNorm', attributes, { x: attended, scale: scale2, shift: shift2 }, { gamma, beta });
  h = linear(layers, h, `${name}.ff.net.0.proj`, 4 * width, { activation: config.activation });
  h = linear(layers, h, `${name}.ff.net.2`, width);
  return apply(graph, 'gatedAdd', {}, { x1: attended, x2: h, gate: gate2 });
}

const widthOf = ({ numAttentionHeads, attentionHeadDim }: DitConfig): number =>
  numAttentionHeads * attentionHeadDim;

/**
 * Adds the network to the graph and returns its output [outChannels, n, h, w]. If the network also predicts a variance,
 * the first inChannels are the prediction.
 * @throws ShapeError if the sides of the sample are not multiples of the patch size.
 */
export function dit(graph: Graph, parameters: Parameters, config: DitConfig, inputs: DitInputs): Value {
  const layers: Layers = { graph, parameters };
  const { patchSize: p, sampleSize, interpolationScale } = config;
  const width = widthOf(config);
  const [inChannels, , h, w] = inputs.sample.shape;
  if (h % p !== 0 || w % p !== 0)
    throw new ShapeError(`dit: expected a sample whose sides are multiples of ${p}, got ${h}x${w}`);
  const grid = [h / p, w / p] as const;
  const positions: Constant = {
    name: `positions ${width} ${grid.join('x')} ${sampleSize / p} ${interpolationScale}`,
    length: width * grid[0] * grid[1],
    values: async () => positionEmbedding(width, grid, sampleSize / p, interpolationScale),
  };
  const patches = apply(
    graph,
    'conv2d',
    { outChannels: width, kernel: [p, p], stride: p, padding: [0, 0, 0, 0] },
    { x: inputs.sample },
    weightAndBias(layers, 'pos_embed.proj', [width, inChannels, p, p]),
  );
  let x = apply(graph, 'addImage', {}, { x: patches }, { image: positions });
  let first: Value | undefined;
  for (let i = 0; i < config.numLayers; i++) {
    const name = `transformer_blocks.${i}`;
    const condition = conditioning(layers, config, inputs, `${name}.norm1.emb`);
    first ??= condition;
    x = block(layers, config, x, condition, name);
  }

  // The embedders of the first block also modulate the output.
  const modulation = linear(layers, first!, 'proj_out_1', 2 * width);
  const [shift, scale] = [0, 1].map((i) => part(layers, modulation, i, width));
  x = apply(graph, 'layerNorm', { eps: EPS }, { x, scale, shift });
  const patchesOut = linear(layers, x, 'proj_out_2', p ** 2 * config.outChannels);
  return apply(graph, 'depthToSpace', { block: p }, { x: patchesOut });
}

/** Returns the tensors of a DiTTransformer2DModel. The position embedding is computed and is not one of them. */
export const ditTensors = (config: DitConfig): readonly ExpectedTensor[] =>
  recordTensors(({ graph, parameters }) => {
    const { inChannels, patchSize } = config;
    dit(graph, parameters, config, {
      sample: input(graph, 'sample', [inChannels, 1, patchSize, patchSize]),
      time: input(graph, 'time', [timeRowLength(TIME_ROW), 1, 1, 1]),
      label: input(graph, 'label', [1, 1, 1, 1]),
    });
  });
