// A Stable Diffusion folder as a network whose candidates are prompts. What only the prompt decides is computed
// once: its encoding, and its keys and values for every cross-attention.

import type { Device } from '../../../kernels/device/device.ts';
import type { WeightDtype } from '../../../kernels/device/routine.ts';
import { checked, createStorage, idle, type Range, submit } from '../../../kernels/device/runtime.ts';
import { pitch, type Shape, storageBytes } from '../../../kernels/device/tensor.ts';
import { apply, type Graph, input, newGraph, output } from '../../core/graph.ts';
import { plan } from '../../core/plan.ts';
import { weightStore } from '../../core/weight-store.ts';
import type { Attached } from '../../evaluation/denoiser.ts';
import type { Network } from '../../evaluation/evaluation.ts';
import { parametersOf } from '../../files/parameters.ts';
import type { TensorFile } from '../../files/safetensors.ts';
import type { TextModelFolder } from '../../models/families.ts';
import type { Level } from '../../model.ts';
import { timeRowLength, timeRows } from '../../networks/time-embedding.ts';
import {
  crossAttentions,
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
  unet2dConditionTensors,
} from '../../networks/unet2d-condition.ts';
import type { Value } from '../../ops/value.ts';
import { encodePrompts, readTextEncoder } from '../../text/prompt-encoder.ts';
import { imageEncoder, latentShape } from '../latent.ts';

const KEPT_BYTES = 2 ** 30;

/** What every device binds at once. */
const BINDING_BYTES = 2 ** 27;

/** A network of prompts and what it needs on a device: `attach` encodes the prompts there. */
export interface TextNetwork {
  readonly network: Network;
  readonly attach: (device: Device) => Promise<Attached>;
}

export interface TextOptions {
  /** The images, [3, height, width]. */
  readonly inputShape: readonly [channels: number, height: number, width: number];
  readonly weightDtype: WeightDtype;
  /** Bytes of keys and values that are kept on the device; where prompts have more, only their encodings are. */
  readonly keptBytes?: number;
  /** The longest table that is bound whole; longer ones are split by channels. */
  readonly bindingBytes?: number;
}

/** A table [channels, prompts, tokens, 1] as inputs of a graph: ranges of channels that each fit a binding. */
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

/** Contexts [prompts, tokens, channels] as rows of channels. */
function channelMajor(contexts: Float32Array, shape: Shape): Float32Array<ArrayBuffer> {
  const [channels, prompts, tokens] = shape;
  const length = prompts * tokens;
  const row = pitch(shape);
  const out = new Float32Array(channels * row);
  for (let i = 0; i < length; i++)
    for (let c = 0; c < channels; c++) out[c * row + i] = contexts[i * channels + c]!;
  return out;
}

/**
 * The UNet of a Stable Diffusion folder and its prompts as a network of latents. Weights are read from `file` when a
 * plan first wants them.
 * @throws ModelError where the file does not hold the network's tensors, or the tokenizer is not in order.
 */
export async function textNetwork(
  folder: TextModelFolder,
  file: TensorFile,
  levels: readonly Level[],
  prompts: readonly string[],
  options: TextOptions,
): Promise<TextNetwork> {
  const { inputShape, weightDtype, keptBytes = KEPT_BYTES, bindingBytes = BINDING_BYTES } = options;
  const { unet } = folder;
  const parameters = parametersOf(file, unet2dConditionTensors(unet));
  const layers = crossAttentions(unet);
  const textEncoder = await readTextEncoder(folder);
  const tokens = textEncoder.tokenizer.length;
  const shapeOf = (inner: number): Shape => [inner, prompts.length, tokens, 1];
  const context = partsOf('context', shapeOf(unet.crossAttentionDim), bindingBytes);
  const bytes = layers.map(({ inner }) => storageBytes(shapeOf(inner)));
  const kept =
    2 * bytes.reduce((sum, size) => sum + size, 0) <= keptBytes &&
    [...bytes, storageBytes(shapeOf(unet.crossAttentionDim))].every((size) => size <= bindingBytes);

  const rows = timeRows(
    unet,
    levels.map(({ t }) => t!),
  );
  const timeTable = { name: 'time rows', length: rows.length, values: async () => rows };
  const channels = timeRowLength(unet);

  const network: Network = {
    image: latentShape(folder.vae, inputShape),
    shared(graph, sample, level) {
      const time = apply(
        graph,
        'gather',
        { entries: levels.length, channels },
        { index: level },
        { table: timeTable },
      );
      return unet2dConditionShared(graph, parameters, unet, { sample, time });
    },
    predict(graph, { label, shared }) {
      const pick = (name: string, shape: Shape) =>
        apply(graph, 'pickSamples', {}, { x: input(graph, name, shape), index: label });
      let own: Value | undefined;
      const crossAttention = (name: string, inner: number) => {
        if (kept) return { k: pick(`${name} k`, shapeOf(inner)), v: pick(`${name} v`, shapeOf(inner)) };
        own ??= joined(
          graph,
          context.map((part) => pick(part.name, part.shape)),
        );
        return keysAndValues(graph, parameters, { name, inner }, own);
      };
      return unet2dCondition(graph, parameters, unet, { shared, crossAttention });
    },
  };

  /** Keys and values of all prompts, in the outputs of a plan that has run. */
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
      const made = await checked(device, () =>
        plan(device, graph, { weights, weightDtype, external: { context: contexts } }),
      );
      submit(device, (pass) => made.encode(pass));
      await idle(device);
      return made;
    } finally {
      weights.destroy();
    }
  };

  const attach = async (device: Device): Promise<Attached> => {
    const owned: { destroy(): void }[] = [];
    const destroy = () => {
      for (const part of owned.splice(0)) part.destroy();
    };
    try {
      const contexts = await encodePrompts(device, textEncoder, prompts, { weightDtype });
      const whole = channelMajor(contexts, shapeOf(unet.crossAttentionDim));
      const row = pitch(shapeOf(1));
      const tables = context.map(({ name, from, shape }): [string, Range] => {
        const data = whole.subarray(from * row, (from + shape[0]) * row);
        const buffer = createStorage(device, data.byteLength, data, name);
        owned.push(buffer);
        return [name, { buffer, offset: 0, size: buffer.size }];
      });
      const encoder = await imageEncoder(device, folder.vae, inputShape, weightDtype);
      owned.push(encoder);
      const bytes = encoder.bytes + 4 * whole.length;
      if (!kept) return { tables: Object.fromEntries(tables), encoder, bytes, destroy };
      const made = await keepKeysAndValues(device, tables[0]![1]);
      owned.push(made);
      return { tables: Object.fromEntries(made.outputs), encoder, bytes: bytes + made.bytes, destroy };
    } catch (error) {
      destroy();
      throw error;
    }
  };
  return { network, attach };
}

const joined = (graph: Graph, parts: readonly Value[]): Value =>
  parts.length === 1
    ? parts[0]!
    : apply(graph, 'concat', {}, Object.fromEntries(parts.map((part, i) => [`x${i}`, part])));
