// Encodes prompts to the contexts that a UNet's cross-attention reads. The tokenizer and the text encoder of a pipeline are
// opened, run and freed, because they are not needed any more as soon as the prompts are encoded.

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
import { clipText, clipTextTensors, embedTokens, withoutBuffers } from '../networks/clip-text.ts';
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
interface TextEncoderSummary extends WeightFile {
  readonly tokenizer: Tokenizer;
  readonly config: ClipTextConfig;
}

export interface PromptEncoderOptions {
  readonly weightDtype?: WeightDtype;
  /** Prompts per run. The last run is filled up with copies, whose results are dropped. */
  readonly chunk?: number;
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
 * Returns the last hidden states of prompts, [n, tokens, hiddenSize] in row-major order like transformers'
 * `last_hidden_state`; `tokens` is the tokenizer's length, 77. A prompt's values do not depend on the other prompts.
 * Everything on the device, including weights, is freed before it returns.
 * @throws ModelError if the weights are not in order; OutOfMemoryError if the device has no memory for the encoder.
 */
export async function encodePrompts(
  device: Device,
  { tokenizer, config, files, weights }: TextEncoderSummary,
  prompts: readonly string[],
  { weightDtype = 'f32', chunk = DEFAULT_CHUNK }: PromptEncoderOptions = {},
): Promise<Float32Array<ArrayBuffer>> {
  const n = Math.min(chunk, prompts.length);
  const tokens = tokenizer.length;
  const c = config.hiddenSize;
  const contexts = new Float32Array(prompts.length * tokens * c);
  if (n === 0) return contexts;

  const file = withoutBuffers(await openTensorFile(files, weights));
  const store = weightStore(device);
  try {
    const parameters = parametersOf(file, clipTextTensors(config));
    const shape: Shape = [c, n, tokens, 1];
    const graph = newGraph();
    output(graph, 'y', clipText(graph, parameters, config, input(graph, 'x', shape)));
    const made = await withMemoryCheck(device, () => plan(device, graph, { weights: store, weightDtype }));
    try {
      const x = made.inputs.get('x')!;
      const row = pitch(shape);
      for (let from = 0; from < prompts.length; from += n) {
        const ids = prompts.slice(from, from + n).map((prompt) => tokenizer.encode(prompt));
        const count = ids.length;
        while (ids.length < n) ids.push(ids[0]!);
        device.gpu.queue.writeBuffer(x.buffer, x.offset, await embedTokens(file, config, ids));
        submit(device, (pass) => made.encode(pass));
        const y = new Float32Array(await readBack(device, made.outputs.get('y')!));
        const out = contexts.subarray(from * tokens * c, (from + count) * tokens * c);
        for (let t = 0; t < count * tokens; t++) for (let i = 0; i < c; i++) out[t * c + i] = y[i * row + t]!;
      }
    } finally {
      made.destroy();
    }
  } finally {
    store.destroy();
    await file.close();
  }
  return contexts;
}
