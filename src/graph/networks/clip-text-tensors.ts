// The tensors a CLIPTextModel must have, by name and shape.

import { type ExpectedTensor, tensorList } from '../files/expected-tensors.ts';
import type { TensorFile } from '../files/safetensors.ts';
import type { ClipTextConfig } from './clip-text-config.ts';

/** What published checkpoints put before every name; transformers 5 leaves it out. */
export const PREFIX = 'text_model.';

/** All tensors of a CLIPTextModel, with the prefix `text_model.` or, as transformers 5 writes them, without. */
export function clipTextTensors(config: ClipTextConfig): readonly ExpectedTensor[] {
  const { vocabSize, maxPositionEmbeddings, hiddenSize: width, intermediateSize } = config;
  const { all, linear, norm } = tensorList();
  all.push({ name: 'embeddings.token_embedding.weight', shape: [vocabSize, width] });
  all.push({ name: 'embeddings.position_embedding.weight', shape: [maxPositionEmbeddings, width] });
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = `encoder.layers.${i}`;
    norm(`${layer}.layer_norm1`, width);
    for (const part of ['q_proj', 'k_proj', 'v_proj', 'out_proj'])
      linear(`${layer}.self_attn.${part}`, width, width);
    norm(`${layer}.layer_norm2`, width);
    linear(`${layer}.mlp.fc1`, width, intermediateSize);
    linear(`${layer}.mlp.fc2`, intermediateSize, width);
  }
  norm('final_layer_norm', width);
  return all.map(({ name, shape }) => ({ name: PREFIX + name, shape, oldName: name }));
}

/** The file without what older versions of transformers wrote beside the weights: the numbers 0, 1, 2, ... of positions. */
export function withoutBuffers(file: TensorFile): TensorFile {
  const tensors = new Map(file.tensors);
  for (const prefix of [PREFIX, '']) tensors.delete(`${prefix}embeddings.position_ids`);
  return { ...file, tensors };
}
