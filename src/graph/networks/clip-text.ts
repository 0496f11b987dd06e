// transformers' CLIPTextModel as a graph: token and position embeddings, layers of causal attention and an MLP, a
// last norm. (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".)
//
// The embeddings are added on the host: a table of 49,408 tokens is more than some devices bind at once, and a text
// needs few of its rows.

import { ModelError } from '../../errors.ts';
import { type Shape, toChannelMajor } from '../../kernels/device/tensor.ts';
import { apply, type Graph } from '../core/graph.ts';
import type { Parameters } from '../files/parameters.ts';
import type { TensorFile } from '../files/safetensors.ts';
import type { Value } from '../ops/value.ts';
import type { ClipTextConfig } from './clip-text-config.ts';
import { PREFIX } from './clip-text-tensors.ts';
import { layerNorm, linear, projections } from './layers.ts';

/**
 * The sum of token and position embeddings of n texts of equal length, as channel-major storage of
 * [hiddenSize, n, tokens, 1]. Of the token table only the rows that the texts need are read.
 * @throws ModelError where a text is longer than the positions, or an id is not in the table.
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
      `${file.path}: a text of ${tokens} tokens is longer than max_position_embeddings ${maxPositionEmbeddings}`,
    );
  const rows = new Map<number, Float32Array>();
  const table = nameIn(file, 'embeddings.token_embedding.weight');
  for (const id of new Set(ids.flatMap((text) => [...text]))) {
    if (id >= vocabSize)
      throw new ModelError(
        `${file.path}: the tokenizer gives the token ${id}, the text encoder's vocab_size is ${vocabSize}; ` +
          'wanted the folders tokenizer and text_encoder of one model',
      );
    const row = new Float32Array(c);
    await file.readPart(table, id * c, row);
    rows.set(id, row);
  }
  const positions = new Float32Array(tokens * c);
  await file.readPart(nameIn(file, 'embeddings.position_embedding.weight'), 0, positions);

  const shape: Shape = [c, ids.length, tokens, 1];
  const sums = new Float32Array(ids.length * c * tokens); // [n, c, tokens]
  for (const [n, text] of ids.entries())
    for (let t = 0; t < tokens; t++) {
      const row = rows.get(text[t]!)!;
      for (let i = 0; i < c; i++) sums[(n * c + i) * tokens + t] = row[i]! + positions[t * c + i]!;
    }
  return toChannelMajor(sums, shape);
}

/** What a file calls a tensor of the network. */
const nameIn = (file: TensorFile, name: string): string =>
  file.tensors.has(PREFIX + name) ? PREFIX + name : name;

/**
 * Adds the network to the graph: from embedded tokens x [hiddenSize, n, tokens, 1] to the last hidden state, behind
 * the last norm, of the same shape.
 */
export function clipText(graph: Graph, parameters: Parameters, config: ClipTextConfig, x: Value): Value {
  const { hiddenSize: width, numAttentionHeads: heads, layerNormEps: eps, hiddenAct } = config;
  const layers = { graph, parameters };
  const scale = 1 / Math.sqrt(width / heads);
  let h = x;
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = `${PREFIX}encoder.layers.${i}`;
    const names = ['q_proj', 'k_proj', 'v_proj'].map((part) => `${layer}.self_attn.${part}`);
    const normed = layerNorm(layers, h, `${layer}.layer_norm1`, eps);
    const qkv = projections(layers, normed, names, 3 * width, true);
    const [q, k, v] = [0, 1, 2].map((part) =>
      apply(graph, 'slice', { from: part * width, count: width }, { x: qkv }),
    );
    const attended = apply(graph, 'attention', { heads, scale, causal: true }, { q, k, v });
    h = apply(graph, 'add', {}, { x1: linear(layers, attended, `${layer}.self_attn.out_proj`), x2: h });
    const hidden = linear(
      layers,
      layerNorm(layers, h, `${layer}.layer_norm2`, eps),
      `${layer}.mlp.fc1`,
      hiddenAct,
    );
    h = apply(graph, 'add', {}, { x1: linear(layers, hidden, `${layer}.mlp.fc2`), x2: h });
  }
  return layerNorm(layers, h, `${PREFIX}final_layer_norm`, eps);
}
