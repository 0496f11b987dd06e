// DiT as a graph: patches of a latent through transformer blocks that time and class modulate (adaLN-Zero).
// (Peebles and Xie 2023, "Scalable Diffusion Models with Transformers".)

import { ShapeError } from '../../errors.ts';
import { apply, type Graph } from '../core/graph.ts';
import type { Parameters } from '../files/parameters.ts';
import type { Constant, Value } from '../ops/value.ts';
import type { DitConfig } from './dit-config.ts';
import { type Layers, linear, selfAttention, weightAndBias } from './layers.ts';

export interface DitInputs {
  /** x_t [inChannels, n, h, w]; h and w are multiples of the patch size. */
  readonly sample: Value;
  /** Rows of `timeRows(TIME_ROW, ...)` [256, n, 1, 1]. */
  readonly time: Value;
  /** Index of the class [1, n, 1, 1]; the number of classes itself stands for none. */
  readonly label: Value;
}

/** Of every norm but the one in front of the MLP. */
const EPS = 1e-6;

/**
 * The position embedding [channels, rows, columns]: the first half of the channels are sinusoids of the column, the
 * second of the row, each half sines, then cosines. `base` is the side of the grid the network was made for: on
 * another one positions are spread over the same range. In f32 where diffusers is, for its very values.
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

/** The i-th `count` channels of a modulation: its shifts, scales or gates. */
const part = ({ graph }: Layers, x: Value, i: number, count: number): Value =>
  apply(graph, 'slice', { from: i * count, count }, { x });

/** silu(time embedding + class embedding) [width, n, 1, 1] of a block. */
function conditioning(layers: Layers, { time, label }: DitInputs, name: string): Value {
  const { graph, parameters } = layers;
  const hidden = linear(layers, time, `${name}.timestep_embedder.linear_1`, 'silu');
  const timeEmbedding = linear(layers, hidden, `${name}.timestep_embedder.linear_2`);
  const table = parameters(`${name}.class_embedder.embedding_table.weight`);
  const channels = timeEmbedding.shape[0];
  const attributes = { entries: table.length / channels, channels };
  const classEmbedding = apply(graph, 'gather', attributes, { index: label }, { table });
  const sum = apply(graph, 'add', {}, { x1: timeEmbedding, x2: classEmbedding });
  return apply(graph, 'activation', { activation: 'silu' }, { x: sum });
}

/** Attention and MLP, each behind a modulated norm and let in by a gate. */
function block(layers: Layers, config: DitConfig, x: Value, condition: Value, name: string): Value {
  const { graph, parameters } = layers;
  const width = x.shape[0];
  const modulation = linear(layers, condition, `${name}.norm1.linear`);
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
    ? weightAndBias(parameters, `${name}.norm3`)
    : { weight: undefined, bias: undefined };
  const attributes = { eps: config.normEps };
  h = apply(graph, 'layerNorm', attributes, { x: attended, scale: scale2, shift: shift2 }, { gamma, beta });
  h = linear(layers, h, `${name}.ff.net.0.proj`, config.activation);
  h = linear(layers, h, `${name}.ff.net.2`);
  return apply(graph, 'gatedAdd', {}, { x1: attended, x2: h, gate: gate2 });
}

/**
 * Adds the network to the graph and returns its output [outChannels, n, h, w]; with learned variance the first
 * inChannels are the prediction.
 * @throws ShapeError where the sample is not made of whole patches.
 */
export function dit(graph: Graph, parameters: Parameters, config: DitConfig, inputs: DitInputs): Value {
  const layers: Layers = { graph, parameters };
  const { patchSize: p, sampleSize, interpolationScale } = config;
  const width = config.numAttentionHeads * config.attentionHeadDim;
  const [, , h, w] = inputs.sample.shape;
  if (h % p !== 0 || w % p !== 0)
    throw new ShapeError(`dit: a sample of ${h}x${w} is not made of whole patches of ${p}x${p}`);
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
    weightAndBias(parameters, 'pos_embed.proj'),
  );
  let x = apply(graph, 'addImage', {}, { x: patches }, { image: positions });
  let first: Value | undefined;
  for (let i = 0; i < config.numLayers; i++) {
    const name = `transformer_blocks.${i}`;
    const condition = conditioning(layers, inputs, `${name}.norm1.emb`);
    first ??= condition;
    x = block(layers, config, x, condition, name);
  }

  // The output is modulated by what the first block's embedders make.
  const modulation = linear(layers, first!, 'proj_out_1');
  const [shift, scale] = [0, 1].map((i) => part(layers, modulation, i, width));
  x = apply(graph, 'layerNorm', { eps: EPS }, { x, scale, shift });
  return apply(graph, 'depthToSpace', { block: p }, { x: linear(layers, x, 'proj_out_2') });
}
