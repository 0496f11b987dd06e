// The tensors of a DiT in diffusers' layout. The position embedding is not among them: it is computed.

import { type ExpectedTensor, tensorList } from '../files/expected-tensors.ts';
import type { DitConfig } from './dit-config.ts';

/** Values of a timestep's sinusoids, whatever the width of the network. */
const TIME_CHANNELS = 256;

/** All tensors of a DiTTransformer2DModel; every block has its own embedders of time and class. */
export function ditTensors(config: DitConfig): readonly ExpectedTensor[] {
  const { all, conv, linear, norm } = tensorList();
  const { patchSize, inChannels, outChannels, numEmbedsAdaNorm } = config;
  const width = config.numAttentionHeads * config.attentionHeadDim;
  conv('pos_embed.proj', inChannels, width, patchSize);
  for (let i = 0; i < config.numLayers; i++) {
    const block = `transformer_blocks.${i}`;
    const embedders = `${block}.norm1.emb`;
    linear(`${embedders}.timestep_embedder.linear_1`, TIME_CHANNELS, width);
    linear(`${embedders}.timestep_embedder.linear_2`, width, width);
    all.push({
      name: `${embedders}.class_embedder.embedding_table.weight`,
      shape: [numEmbedsAdaNorm + 1, width],
    });
    linear(`${block}.norm1.linear`, width, 6 * width);
    for (const part of ['to_q', 'to_k', 'to_v'])
      linear(`${block}.attn1.${part}`, width, width, config.attentionBias);
    linear(`${block}.attn1.to_out.0`, width, width);
    if (config.normElementwiseAffine) norm(`${block}.norm3`, width);
    linear(`${block}.ff.net.0.proj`, width, 4 * width);
    linear(`${block}.ff.net.2`, 4 * width, width);
  }
  linear('proj_out_1', width, 2 * width);
  linear('proj_out_2', width, patchSize ** 2 * outChannels);
  return all;
}
