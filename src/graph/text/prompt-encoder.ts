// Encodes prompts to the contexts that a UNet's cross-attention reads, and to vectors that encode a prompt as a whole. The
// tokenizer and the text encoder of a pipeline are opened, run and freed, because they are not needed any more as soon as
// the prompts are encoded.

import { ModelError } from '../../errors.ts';
import type { Device } from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import { readBack, submit, withMemoryCheck } from '../../kernels/device/runtime.ts';
import { pitch, type Shape } from '../../kernels/device/tensor.ts';
import { input, newGraph, output } from '../core/graph.ts';
import { plan } from '../core/plan.ts';
import { weightStore } from '../core/weight-store.ts';
import { type Files, nameIn } from '../files/files.ts';
import { parametersOf } from '../files/parameters.ts';
import { openTensorFile } from '../files/safetensors.ts';
import { findWeights, type WeightFile } from '../folders/weights.ts';
import {
  clipText,
  clipTextTensors,
  embedTokens,
  projectTexts,
  withoutBuffers,
} from '../networks/clip-text.ts';
import { type ClipTextConfig, readClipTextConfig } from '../networks/clip-text-config.ts';
import type { Tokenizer } from './tokenizer.ts';
import { readTokenizer } from './tokenizer-files.ts';

/** The folders of a pipeline's tokenizer and text encoder. */
export interface TextEncoderFolders {
  readonly files: Files;
  readonly tokenizer: string;
  readonly textEncoder: string;
}

/** What the folders hold, with the weights not yet opened. */
export interface TextEncoderSummary extends WeightFile {
  readonly tokenizer: Tokenizer;
  readonly config: ClipTextConfig;
}

export interface PromptEncoderOptions {
  readonly weightDtype?: WeightDtype;
  /** Prompts per run. The last run is filled up with copies, whose results are dropped. */
  readonly chunk?: number;
  /** Which states of the tokens are the context; see `clipText`. Default: `last`. */
  readonly states?: 'last' | 'penultimate';
}

/** The encodings of n prompts. A prompt's values do not depend on the other prompts. */
interface EncodedPrompts {
  /** The states of the tokens, [n, tokens, hiddenSize]; `tokens` is the tokenizer's length, 77. */
  readonly contexts: Float32Array<ArrayBuffer>;
  /** A vector per prompt, [n, projectionDim]; empty if the encoder has no projection. */
  readonly pooled: Float32Array<ArrayBuffer>;
}

const DEFAULT_CHUNK = 8;

/**
 * Reads everything but the weights.
 * @throws ModelError naming the file that is missing or not in order, also if tokenizer and encoder do not belong
 * together.
 */
export async function readTextEncoder({
  files,
  tokenizer: folder,
  textEncoder,
}: TextEncoderFolders): Promise<TextEncoderSummary> {
  const configName = nameIn(textEncoder, 'config.json');
  const configFile = files.describe(configName);
  const config = await readClipTextConfig(files, configName);
  const weights = await findWeights(files, textEncoder, 'model');
  const tokenizer = await readTokenizer(files, folder);
  if (tokenizer.length > config.maxPositionEmbeddings)
    throw new ModelError(
      `${configFile}: expected texts of at most ${config.maxPositionEmbeddings} tokens (max_position_embeddings), ` +
        `got texts of ${tokenizer.length} from the tokenizer in ${files.describe(folder)}`,
    );
  const largest = Math.max(...tokenizer.encode(''));
  if (largest >= config.vocabSize)
    throw new ModelError(
      `${configFile}: expected tokens below vocab_size ${config.vocabSize}, got token ${largest} from the tokenizer in ${files.describe(folder)}; ` +
        'use the folders tokenizer and text_encoder of one model',
    );
  return { tokenizer, config, files, weights };
}

/**
 * Encodes prompts. Everything on the device, including weights, is freed before it returns.
 * @throws ModelError if the weights are not in order; OutOfMemoryError if the device has no memory for the encoder.
 */
export async function encodePrompts(
  device: Device,
  { tokenizer, config, files, weights }: TextEncoderSummary,
  prompts: readonly string[],
  { weightDtype = 'f32', chunk = DEFAULT_CHUNK, states = 'last' }: PromptEncoderOptions = {},
): Promise<EncodedPrompts> {
  const n = Math.min(chunk, prompts.length);
  const tokens = tokenizer.length;
  const { hiddenSize: c, projectionDim } = config;
  const contexts = new Float32Array(prompts.length * tokens * c);
  if (n === 0) return { contexts, pooled: new Float32Array() };

  const file = withoutBuffers(await openTensorFile(files, weights));
  const store = weightStore(device);
  try {
    const parameters = parametersOf(file, clipTextTensors(config));
    const shape: Shape = [c, n, tokens, 1];
    const row = pitch(shape);
    const graph = newGraph();
    const found = clipText(graph, parameters, config, input(graph, 'x', shape));
    output(graph, 'context', found[states]);
    if (projectionDim !== undefined) output(graph, 'last', found.last);
    const made = await withMemoryCheck(device, () => plan(device, graph, { weights: store, weightDtype }));
    const read = async (name: string) => new Float32Array(await readBack(device, made.outputs.get(name)!));
    const ends: Float32Array[] = [];
    try {
      const x = made.inputs.get('x')!;
      for (let from = 0; from < prompts.length; from += n) {
        const ids = prompts.slice(from, from + n).map((prompt) => tokenizer.encode(prompt));
        const count = ids.length;
        while (ids.length < n) ids.push(ids[0]!);
        device.gpu.queue.writeBuffer(x.buffer, x.offset, await embedTokens(file, config, ids));
        submit(device, (pass) => made.encode(pass));
        const y = await read('context');
        const out = contexts.subarray(from * tokens * c, (from + count) * tokens * c);
        for (let t = 0; t < count * tokens; t++) for (let i = 0; i < c; i++) out[t * c + i] = y[i * row + t]!;
        if (projectionDim === undefined) continue;
        const last = await read('last');
        for (let k = 0; k < count; k++) {
          // The vector is that of the first end token, also if the end token is the padding, or a textual inversion has a
          // token with a larger id, whose vector transformers would take.
          const t = k * tokens + ids[k]!.indexOf(tokenizer.end);
          ends.push(Float32Array.from({ length: c }, (_, i) => last[i * row + t]!));
        }
      }
    } finally {
      made.destroy();
    }
    const pooled =
      projectionDim === undefined ? new Float32Array() : await projectTexts(file, config, joined(ends, c));
    return { contexts, pooled };
  } finally {
    store.destroy();
    await file.close();
  }
}

/** Returns rows of `length` values, one after the other. */
function joined(rows: readonly Float32Array[], length: number): Float32Array<ArrayBuffer> {
  const all = new Float32Array(rows.length * length);
  rows.forEach((row, i) => {
    all.set(row, i * length);
  });
  return all;
}
