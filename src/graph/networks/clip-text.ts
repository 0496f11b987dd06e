// transformers' CLIPTextModel as a graph: token and position embeddings, layers of causal attention and an MLP, and a
// last norm (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision").
//
// The host adds the embeddings, because some devices cannot bind a table of 49,408 tokens at once, and a text needs few
// of its rows. It also multiplies with the projection of CLIPTextModelWithProjection, which reads one token per text.

import { ModelError } from '../../errors.ts';
import { type Shape, toChannelMajor } from '../../kernels/device/tensor.ts';
import { apply, type Graph, input } from '../core/graph.ts';
import type { ExpectedTensor } from '../files/expected-tensors.ts';
import type { Parameters } from '../files/parameters.ts';
import type { TensorFile } from '../files/safetensors.ts';
import type { Value } from '../ops/value.ts';
import type { ClipTextConfig } from './clip-text-config.ts';
import { type Layers, layerNorm, linear, projections, recordTensors, thirds } from './layers.ts';

/** The prefix that published checkpoints put before every name; transformers 5 leaves it out. */
const PREFIX = 'text_model.';

/**
 * Returns the sums of token and position embeddings of n texts of equal length, as channel-major storage of
 * [hiddenSize, n, tokens, 1]. Reads only the rows of the token table that the texts need.
 * @throws ModelError if a text is longer than the table of positions, or an id is not in the token table.
 */
export async function embedTokens(
  file: TensorFile,
  config: ClipTextConfig,
  ids: readonly Int32Array[],
): Promise<Float32Array<ArrayBuffer>> {
  const { hiddenSize: c, vocabSize, maxPositionEmbeddings } = config;
  const tokens = ids[0]?.length ?? 0;
  if (tokens > maxPositionEmbeddings)
    throw new ModelError(
      `${file.path}: expected a text of at most ${maxPositionEmbeddings} tokens (max_position_embeddings), got ${tokens}`,
    );
  const rows = new Map<number, Float32Array>();
  const table = storedName(file, 'embeddings.token_embedding.weight');
  for (const id of new Set(ids.flatMap((text) => [...text]))) {
    if (id >= vocabSize)
      throw new ModelError(
        `${file.path}: expected tokens below vocab_size ${vocabSize}, got token ${id} from the tokenizer; ` +
          'take the folders tokenizer and text_encoder from the same model',
      );
    const row = new Float32Array(c);
    await file.readPart(table, id * c, row);
    rows.set(id, row);
  }
  const positions = new Float32Array(tokens * c);
  await file.readPart(storedName(file, 'embeddings.position_embedding.weight'), 0, positions);

  const shape: Shape = [c, ids.length, tokens, 1];
  const sums = new Float32Array(ids.length * c * tokens); // [n, c, tokens]
  for (const [n, text] of ids.entries())
    for (let t = 0; t < tokens; t++) {
      const row = rows.get(text[t]!)!;
      for (let i = 0; i < c; i++) sums[(n * c + i) * tokens + t] = row[i]! + positions[t * c + i]!;
    }
  return toChannelMajor(sums, shape);
}

/** Returns the name under which a file has a tensor of the network. */
const storedName = (file: TensorFile, name: string): string =>
  file.tensors.has(PREFIX + name) ? PREFIX + name : name;

/** States of the tokens, [hiddenSize, n, tokens, 1] each. */
interface ClipTextStates {
  /** After the last layer and the last norm: transformers' `last_hidden_state`. */
  readonly last: Value;
  /** Before the last layer, without a norm: transformers' `hidden_states[-2]`. */
  readonly penultimate: Value;
}

/** Adds the network to the graph, for embedded tokens x [hiddenSize, n, tokens, 1]. */
export function clipText(
  graph: Graph,
  parameters: Parameters,
  config: ClipTextConfig,
  x: Value,
): ClipTextStates {
  const { hiddenSize: width, numAttentionHeads: heads, layerNormEps: eps, hiddenAct } = config;
  const layers: Layers = { graph, parameters: prefixed(parameters) };
  const scale = 1 / Math.sqrt(width / heads);
  let h = x;
  let penultimate = x;
  for (let i = 0; i < config.numHiddenLayers; i++) {
    penultimate = h;
    const layer = `encoder.layers.${i}`;
    const names = ['q_proj', 'k_proj', 'v_proj'].map((part) => `${layer}.self_attn.${part}`);
    const normed = layerNorm(layers, h, `${layer}.layer_norm1`, eps);
    const [q, k, v] = thirds(layers, projections(layers, normed, names, width, { bias: true }));
    const attended = apply(graph, 'attention', { heads, scale, causal: true }, { q, k, v });
    const projected = linear(layers, attended, `${layer}.self_attn.out_proj`, width);
    h = apply(graph, 'add', {}, { x1: projected, x2: h });
    const hidden = linear(
      layers,
      layerNorm(layers, h, `${layer}.layer_norm2`, eps),
      `${layer}.mlp.fc1`,
      config.intermediateSize,
      { activation: hiddenAct },
    );
    h = apply(graph, 'add', {}, { x1: linear(layers, hidden, `${layer}.mlp.fc2`, width), x2: h });
  }
  return { last: layerNorm(layers, h, 'final_layer_norm', eps), penultimate };
}

/** The projection of CLIPTextModelWithProjection: a matrix [projectionDim, hiddenSize], without a bias. */
const PROJECTION = 'text_projection.weight';

/**
 * Returns the vectors [n, projectionDim] of n texts: the projections of rows [n, hiddenSize] of `ClipTextStates.last` at
 * the end tokens. Transformers calls them `text_embeds`.
 */
export async function projectTexts(
  file: TensorFile,
  { hiddenSize, projectionDim = 0 }: ClipTextConfig,
  rows: Float32Array,
): Promise<Float32Array<ArrayBuffer>> {
  const matrix = await file.readF32(PROJECTION);
  const texts = rows.length / hiddenSize;
  const out = new Float32Array(texts * projectionDim);
  for (let n = 0; n < texts; n++)
    for (let o = 0; o < projectionDim; o++) {
      let sum = 0;
      for (let i = 0; i < hiddenSize; i++) sum += rows[n * hiddenSize + i]! * matrix[o * hiddenSize + i]!;
      out[n * projectionDim + o] = sum;
    }
  return out;
}

/** Requests parameters with the prefix `text_model.` or, as transformers 5 writes them, without. */
const prefixed =
  (parameters: Parameters): Parameters =>
  (name, shape) =>
    parameters(PREFIX + name, shape, name);

/** Returns the tensors of a CLIP text encoder. */
export const clipTextTensors = (config: ClipTextConfig): readonly ExpectedTensor[] =>
  recordTensors(({ graph, parameters }) => {
    const { vocabSize, maxPositionEmbeddings, hiddenSize, projectionDim } = config;
    // The graph does not read these: `embedTokens` and `projectTexts` do, on the host.
    prefixed(parameters)('embeddings.token_embedding.weight', [vocabSize, hiddenSize]);
    prefixed(parameters)('embeddings.position_embedding.weight', [maxPositionEmbeddings, hiddenSize]);
    if (projectionDim !== undefined) parameters(PROJECTION, [projectionDim, hiddenSize]);
    clipText(graph, parameters, config, input(graph, 'x', [hiddenSize, 1, 1, 1]));
  });

/** Leaves out the position numbers 0, 1, 2, ..., which older versions of transformers saved next to the weights. */
export function withoutBuffers(file: TensorFile): TensorFile {
  const tensors = new Map(file.tensors);
  for (const prefix of [PREFIX, '']) tensors.delete(`${prefix}embeddings.position_ids`);
  return { ...file, tensors };
}
