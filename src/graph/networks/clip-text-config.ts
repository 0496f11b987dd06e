// The configuration of transformers' CLIPTextModel and CLIPTextModelWithProjection, checked and with transformers' defaults filled in. Values that are not
// supported are refused by name. Keys that the network does not read, of which transformers writes many, are ignored.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import type { Activation } from '../../kernels/elementwise/activation.ts';
import { checked, jsonReader, quote } from '../files/json.ts';
import { count, layerCount } from './unet-keys.ts';

/** The configuration of a CLIP text encoder, by transformers' names in camel case. */
export interface ClipTextConfig {
  /** Rows of the token table. */
  readonly vocabSize: number;
  /** Channels of a token, and of the result. */
  readonly hiddenSize: number;
  /** Channels between the two layers of the MLP. */
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  /** The number of tokens of the longest text. */
  readonly maxPositionEmbeddings: number;
  /** The activation between the two layers of the MLP. */
  readonly hiddenAct: Activation;
  readonly layerNormEps: number;
  /** Channels of the vector that encodes a text as a whole; undefined for CLIPTextModel, which computes none. */
  readonly projectionDim: number | undefined;
}

const schema = z.object({
  architectures: z.array(z.string()).nullish(),
  model_type: z.string().nullish(),
  quantization_config: z.unknown().optional(),
  vocab_size: count.default(49408),
  hidden_size: count.default(512),
  intermediate_size: count.default(2048),
  num_hidden_layers: layerCount.default(12),
  num_attention_heads: count.default(8),
  max_position_embeddings: count.default(77),
  hidden_act: z.string().default('quick_gelu'),
  layer_norm_eps: z.number().min(0).default(1e-5),
  projection_dim: count.default(512),
});

/** Activations by transformers' names; gelu_new and gelu_pytorch_tanh are the same function. */
const activations: Readonly<Record<string, Activation>> = {
  quick_gelu: 'quick-gelu',
  gelu: 'gelu',
  gelu_new: 'gelu-tanh',
  gelu_pytorch_tanh: 'gelu-tanh',
};

/** The models that have text encoders of other architectures. */
const others: Readonly<Record<string, string>> = {
  T5EncoderModel: 'a text encoder of Stable Diffusion 3, Flux and DeepFloyd IF',
  RobertaSeriesModelWithTransformation: 'the text encoder of AltDiffusion',
  CLIPModel: 'a whole CLIP model',
};

/** The classes that are supported; the second also projects the state of the end token to a vector. */
const PLAIN = 'CLIPTextModel';
const PROJECTING = 'CLIPTextModelWithProjection';

/** Reads a CLIP text encoder's `config.json`. Throws `ModelError` with the file, the key and the expected value. */
export const readClipTextConfig = jsonReader(parseClipTextConfig);

/** Returns the configuration of a parsed `config.json`; `file` is its name in messages. */
export function parseClipTextConfig(config: unknown, file: string): ClipTextConfig {
  const got = checked(schema, config, file);
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  const [architecture] = got.architectures ?? [];
  const known = architecture === PLAIN || architecture === PROJECTING;
  if (architecture === undefined ? got.model_type !== 'clip_text_model' : !known) {
    const name = quote(architecture ?? got.model_type ?? 'nothing');
    const meaning =
      architecture !== undefined && Object.hasOwn(others, architecture) ? others[architecture] : '';
    throw refuse(
      `expected a text encoder of Stable Diffusion 1.x, 2.x or XL, ${PLAIN} or ${PROJECTING}, ` +
        `got ${name}${meaning ? `, ${meaning}` : ''}`,
    );
  }
  if (got.quantization_config != null)
    throw refuse('quantization_config: expected weights that are not quantised');
  if (!Object.hasOwn(activations, got.hidden_act))
    throw refuse(
      `hidden_act: expected ${Object.keys(activations).join(' or ')}, got ${quote(got.hidden_act)}`,
    );
  const { hidden_size: width, num_attention_heads: heads } = got;
  if (width % heads !== 0) throw refuse(`num_attention_heads ${heads} does not divide hidden_size ${width}`);
  return {
    vocabSize: got.vocab_size,
    hiddenSize: width,
    intermediateSize: got.intermediate_size,
    numHiddenLayers: got.num_hidden_layers,
    numAttentionHeads: heads,
    maxPositionEmbeddings: got.max_position_embeddings,
    hiddenAct: activations[got.hidden_act]!,
    layerNormEps: got.layer_norm_eps,
    projectionDim: architecture === PROJECTING ? got.projection_dim : undefined,
  };
}
