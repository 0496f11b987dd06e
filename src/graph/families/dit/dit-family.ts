// Class-conditional latent transformers: diffusers' DiTPipeline (Peebles and Xie 2023).

import { ModelError } from '../../../errors.ts';
import type { Network } from '../../evaluation/evaluation.ts';
import { parametersOf } from '../../files/parameters.ts';
import type { TensorFile } from '../../files/safetensors.ts';
import { namedLabels } from '../../folders/labels.ts';
import type { Level } from '../../model.ts';
import { dit, ditTensors } from '../../networks/dit.ts';
import { type DitConfig, readDitConfig } from '../../networks/dit-config.ts';
import { lookUp } from '../../networks/layers.ts';
import { TIME_ROW, timeTable } from '../../networks/time-embedding.ts';
import { vaeDownscale } from '../../networks/vae-encoder-config.ts';
import type { Family } from '../family.ts';
import { imageEncoder, readVae, VAE, type VaeFolder } from '../latent.ts';
import {
  components,
  diffusersNetwork,
  openPipeline,
  type PipelineConfig,
  timestepLevels,
} from '../pipeline.ts';

/** A DiT without its weights. */
interface TransformerConfig extends PipelineConfig {
  readonly transformer: DitConfig;
  readonly vae: VaeFolder;
  readonly labels: readonly string[];
}

/**
 * Returns the transformer as a network of latents. The class modulates every block, so candidates share nothing.
 * @throws ModelError if the file does not hold the network's tensors.
 */
function transformerNetwork(transformer: DitConfig, file: TensorFile, levels: readonly Level[]): Network {
  const parameters = parametersOf(file, ditTensors(transformer));
  const times = timeTable(TIME_ROW, levels);
  return {
    image: [transformer.inChannels, transformer.sampleSize, transformer.sampleSize],
    predict(graph, { xt: sample, level, label }) {
      const time = lookUp(graph, times, levels.length, level);
      return dit(graph, parameters, transformer, { sample, time, label });
    },
  };
}

const TRANSFORMER = diffusersNetwork(
  [
    'sample_size',
    'in_channels',
    'attention_head_dim',
    'cross_attention_dim',
    'upcast_attention',
    'num_layers',
    'num_attention_heads',
    'patch_size',
    'num_embeds_ada_norm',
  ],
  async (files, name, file) => parametersOf(file, ditTensors(await readDitConfig(files, name))),
);

export const ditFamily: Family<TransformerConfig> = {
  batch: 16,
  recognise: ({ className }) => className === 'DiTPipeline',
  async config(files, index) {
    const { id2label, indexFile, common } = openPipeline(files, index, {
      transformer: ['DiTTransformer2DModel', 'Transformer2DModel'],
      vae: ['AutoencoderKL'],
    });
    const transformer = await readDitConfig(files, 'transformer/config.json');
    const vae = await readVae(files, transformer.inChannels, files.describe('transformer/config.json'));
    const named = Object.keys(id2label ?? {}).length;
    if (named > transformer.numEmbedsAdaNorm)
      throw new ModelError(
        `${indexFile}: id2label names ${named} classes, but num_embeds_ada_norm is ${transformer.numEmbedsAdaNorm}`,
      );
    const labels = namedLabels(id2label, named || transformer.numEmbedsAdaNorm, indexFile);
    return { ...(await common('transformer')), transformer, vae, labels };
  },
  images({ transformer, vae }) {
    const side = transformer.sampleSize * vaeDownscale(vae.config);
    return { inputShape: [3, side, side], crop: 'adm' };
  },
  levels: (config) => timestepLevels(config, 250),
  candidates: ({ labels, transformer }) => ({
    conditioning: 'class',
    labels,
    nullClass: transformer.numEmbedsAdaNorm,
  }),
  network: async ({ transformer, vae }, { file, levels, inputShape, weightDtype }) => ({
    network: transformerNetwork(transformer, file, levels),
    async attach(device) {
      const encoder = await imageEncoder(device, vae, inputShape, weightDtype);
      return { encoder, bytes: encoder.bytes, destroy: () => encoder.destroy() };
    },
  }),
  describe: (index) =>
    components(index, {
      DiTTransformer2DModel: TRANSFORMER,
      Transformer2DModel: TRANSFORMER,
      AutoencoderKL: VAE,
    }),
};
