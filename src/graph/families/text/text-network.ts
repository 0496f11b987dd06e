// The network of a text-to-image model, whose candidates are prompts. Everything that depends on the prompt alone is
// computed once: its encoding, and its keys and values for every cross-attention.

import { ModelError } from '../../../errors.ts';
import type { Device } from '../../../kernels/device/device.ts';
import { createStorage, idle, type Range, submit, withMemoryCheck } from '../../../kernels/device/runtime.ts';
import { columns, pitch, type Shape, storageBytes } from '../../../kernels/device/tensor.ts';
import { sum } from '../../../numbers.ts';
import { apply, concatenate, input, newGraph, output } from '../../core/graph.ts';
import { plan } from '../../core/plan.ts';
import { weightStore } from '../../core/weight-store.ts';
import type { Attached } from '../../evaluation/denoiser.ts';
import type { ImageRow, Network } from '../../evaluation/evaluation.ts';
import { parametersOf } from '../../files/parameters.ts';
import { type ImageGeometry, NO_CLASS } from '../../model.ts';
import { lookUp } from '../../networks/layers.ts';
import { sizeRow, timeTable } from '../../networks/time-embedding.ts';
import {
  crossAttentions,
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
  unet2dConditionTensors,
} from '../../networks/unet2d-condition.ts';
import {
  type AddedEmbedding,
  SIZE_NUMBERS,
  type UNet2DConditionConfig,
} from '../../networks/unet2d-condition-config.ts';
import type { Value } from '../../ops/value.ts';
import {
  encodePrompts,
  readTextEncoder,
  type TextEncoderFolders,
  type TextEncoderSummary,
} from '../../text/prompt-encoder.ts';
import type { FamilyNetwork, NetworkRequest } from '../family.ts';
import { imageEncoder, latentShape, type VaeFolder } from '../latent.ts';

/** Default of `TextRequest.keptBytes`. */
const KEPT_BYTES = 2 ** 30;

/** Default of `TextRequest.bindingBytes`: what every device binds at once. */
const BINDING_BYTES = 2 ** 27;

/** What the network is built from. */
export interface TextNetworkConfig {
  readonly unet: UNet2DConditionConfig;
  readonly vae: VaeFolder;
  /** The text encoders, whose states of a token are concatenated; the last one also computes the vector of a prompt. */
  readonly encoders: readonly TextEncoderFolders[];
  /** The states of the text encoders that the network was trained with. */
  readonly states: 'last' | 'penultimate';
  /** Whether zeros, not the encoding of the empty prompt, stand for no prompt (the candidate with `NO_CLASS`). */
  readonly zerosForNoPrompt: boolean;
}

/** What the network is built for. The two limits are for tests. */
interface TextRequest extends NetworkRequest {
  /** Bytes of keys and values that are kept on the device. If prompts have more, only their encodings are kept. */
  readonly keptBytes?: number;
  /** The longest table that is bound whole; longer ones are split by channels. */
  readonly bindingBytes?: number;
}

/** Splits a table [channels, prompts, tokens, 1] into inputs of a graph: ranges of channels that each fit a binding. */
function partsOf(name: string, [channels, prompts, tokens]: Shape, bindingBytes: number) {
  const most = Math.max(1, Math.floor(bindingBytes / storageBytes([1, prompts, tokens, 1])));
  const parts: { readonly name: string; readonly from: number; readonly shape: Shape }[] = [];
  for (let from = 0; from < channels; from += most)
    parts.push({
      name: `${name} ${from}`,
      from,
      shape: [Math.min(most, channels - from), prompts, tokens, 1],
    });
  return parts;
}

/** Values of each column, `channels` values per column: states of tokens, or vectors of prompts. */
interface Columns {
  readonly channels: number;
  readonly values: Float32Array;
}

/** Transposes columns to rows of channels, those of the first part first. */
function channelMajor(parts: readonly Columns[], shape: Shape): Float32Array<ArrayBuffer> {
  const length = columns(shape);
  const row = pitch(shape);
  const out = new Float32Array(shape[0] * row);
  let first = 0;
  for (const { channels, values } of parts) {
    for (let i = 0; i < length; i++)
      for (let c = 0; c < channels; c++) out[(first + c) * row + i] = values[i * channels + c]!;
    first += channels;
  }
  return out;
}

/** Reads the text encoders. @throws ModelError if their texts differ in length. */
async function readTextEncoders({ encoders }: TextNetworkConfig): Promise<readonly TextEncoderSummary[]> {
  const found: TextEncoderSummary[] = [];
  for (const folders of encoders) found.push(await readTextEncoder(folders));
  const [first] = found;
  const other = found.findIndex(({ tokenizer }) => tokenizer.length !== first!.tokenizer.length);
  if (other >= 0) {
    const { files, tokenizer } = encoders[other]!;
    throw new ModelError(
      `${files.describe(tokenizer)}: expected texts of ${first!.tokenizer.length} tokens as of the other tokenizer, got texts of ${found[other]!.tokenizer.length}`,
    );
  }
  return found;
}

/**
 * Returns the rows of six numbers per image: height and width of the image before it was resized, top and left of the crop,
 * and the height and width that the model is given.
 */
function sizeRows(
  unet: UNet2DConditionConfig,
  { sizeDim }: AddedEmbedding,
  [, h, w]: NetworkRequest['inputShape'],
  given: ImageGeometry | undefined,
): ImageRow {
  return {
    length: SIZE_NUMBERS * sizeDim,
    of(geometry = { height: h, width: w, top: 0, left: 0 }) {
      const { height, width, top, left } = given ?? geometry;
      return sizeRow(unet, sizeDim, [height, width, top, left, h, w]);
    },
  };
}

/**
 * Builds the UNet and its prompts as a network of latents.
 * @throws ModelError if the file does not hold the network's tensors, or the tokenizer is not in order.
 */
export async function textNetwork(
  config: TextNetworkConfig,
  {
    file,
    levels,
    candidates,
    inputShape,
    weightDtype,
    sizeConditioning,
    keptBytes = KEPT_BYTES,
    bindingBytes = BINDING_BYTES,
  }: TextRequest,
): Promise<FamilyNetwork & Required<Pick<FamilyNetwork, 'attach'>>> {
  const { unet, vae } = config;
  const prompts = candidates.map(({ prompt }) => prompt!);
  const parameters = parametersOf(file, unet2dConditionTensors(unet));
  const layers = crossAttentions(unet);
  const textEncoders = await readTextEncoders(config);
  const tokens = textEncoders[0]!.tokenizer.length;
  const shapeOf = (inner: number): Shape => [inner, prompts.length, tokens, 1];
  const context = partsOf('context', shapeOf(unet.crossAttentionDim), bindingBytes);
  const bytes = layers.map(({ inner }) => storageBytes(shapeOf(inner)));
  const kept =
    2 * sum(bytes) <= keptBytes &&
    [...bytes, storageBytes(shapeOf(unet.crossAttentionDim))].every((size) => size <= bindingBytes);

  const { addedEmbedding } = unet;
  const pooledShape = (channels: number): Shape => [channels, prompts.length, 1, 1];
  const pooledParts = addedEmbedding
    ? partsOf('pooled', pooledShape(addedEmbedding.pooledDim), bindingBytes)
    : [];
  const imageRow = addedEmbedding && sizeRows(unet, addedEmbedding, inputShape, sizeConditioning);

  const times = timeTable(unet, levels);

  const network: Network = {
    image: latentShape(vae, inputShape),
    imageRow,
    shared(graph, sample, level, row) {
      const time = lookUp(graph, times, levels.length, level);
      const shared = unet2dConditionShared(graph, parameters, unet, { sample, time });
      return row ? [row, ...shared] : shared;
    },
    predict(graph, { label, shared }) {
      const pick = (name: string, shape: Shape) =>
        apply(graph, 'pickSamples', {}, { x: input(graph, name, shape), index: label });
      let own: Value | undefined;
      const crossAttention = (name: string, inner: number) => {
        if (kept) return { k: pick(`${name} k`, shapeOf(inner)), v: pick(`${name} v`, shapeOf(inner)) };
        own ??= concatenate(
          graph,
          context.map((part) => pick(part.name, part.shape)),
        );
        return keysAndValues(graph, parameters, { name, inner }, own);
      };
      if (!addedEmbedding) return unet2dCondition(graph, parameters, unet, { shared, crossAttention });
      const [size, ...rest] = shared as readonly [Value, ...Value[]];
      const pooled = concatenate(
        graph,
        pooledParts.map((part) => pick(part.name, part.shape)),
      );
      const added = { pooled, size };
      return unet2dCondition(graph, parameters, unet, { shared: rest, crossAttention, added });
    },
  };

  /** Computes the keys and values of all prompts. Returns the plan that has run, whose outputs hold them. */
  const keepKeysAndValues = async (device: Device, contexts: Range) => {
    const graph = newGraph();
    const all = input(graph, 'context', shapeOf(unet.crossAttentionDim));
    for (const layer of layers) {
      const { k, v } = keysAndValues(graph, parameters, layer, all);
      output(graph, `${layer.name} k`, k);
      output(graph, `${layer.name} v`, v);
    }
    const weights = weightStore(device);
    try {
      const made = await withMemoryCheck(device, () =>
        plan(device, graph, { weights, weightDtype, external: { context: contexts } }),
      );
      submit(device, (pass) => made.encode(pass));
      await idle(device);
      return made;
    } finally {
      weights.destroy();
    }
  };

  /** Encodes all prompts: states of tokens by encoder, and the vectors of the last encoder. */
  const encodeAll = async (device: Device) => {
    const contexts: Columns[] = [];
    let pooled: Columns = { channels: 0, values: new Float32Array() };
    for (const encoder of textEncoders) {
      const encoded = await encodePrompts(device, encoder, prompts, { weightDtype, states: config.states });
      const { hiddenSize, projectionDim = 0 } = encoder.config;
      contexts.push({ channels: hiddenSize, values: encoded.contexts });
      pooled = { channels: projectionDim, values: encoded.pooled };
    }
    if (config.zerosForNoPrompt)
      for (const [i, { classidx, prompt }] of candidates.entries())
        if (classidx === NO_CLASS && prompt === '') {
          for (const { channels, values } of contexts)
            values.fill(0, i * tokens * channels, (i + 1) * tokens * channels);
          pooled.values.fill(0, i * pooled.channels, (i + 1) * pooled.channels);
        }
    return { contexts, pooled };
  };

  const attach = async (device: Device): Promise<Attached> => {
    const owned: { destroy(): void }[] = [];
    const destroy = () => {
      for (const part of owned.splice(0)) part.destroy();
    };
    try {
      /** Puts the parts of a table on the device. */
      const store = (parts: ReturnType<typeof partsOf>, whole: Float32Array<ArrayBuffer>) =>
        parts.map(({ name, from, shape }): [string, Range] => {
          const row = pitch(shape);
          const data = whole.subarray(from * row, (from + shape[0]) * row);
          const buffer = createStorage(device, data.byteLength, data, name);
          owned.push(buffer);
          return [name, { buffer, offset: 0, size: buffer.size }];
        });
      const { contexts, pooled } = await encodeAll(device);
      const whole = channelMajor(contexts, shapeOf(unet.crossAttentionDim));
      const tables = store(context, whole);
      const vectors = addedEmbedding && channelMajor([pooled], pooledShape(addedEmbedding.pooledDim));
      const vectorTables = vectors ? store(pooledParts, vectors) : [];
      const encoder = await imageEncoder(device, vae, inputShape, weightDtype);
      owned.push(encoder);
      const bytes = encoder.bytes + 4 * (whole.length + (vectors?.length ?? 0));
      if (!kept) return { tables: Object.fromEntries([...tables, ...vectorTables]), encoder, bytes, destroy };
      const made = await keepKeysAndValues(device, tables[0]![1]);
      owned.push(made);
      return {
        tables: Object.fromEntries([...made.outputs, ...vectorTables]),
        encoder,
        bytes: bytes + made.bytes,
        destroy,
      };
    } catch (error) {
      destroy();
      throw error;
    }
  };
  return { network, attach };
}
