// The network of a text-to-image model, whose candidates are prompts. Everything that depends on the prompt alone is
// computed once: its encoding, and its keys and values for every cross-attention.

import type { Device } from '../../../kernels/device/device.ts';
import { createStorage, idle, type Range, submit, withMemoryCheck } from '../../../kernels/device/runtime.ts';
import { pitch, type Shape, storageBytes } from '../../../kernels/device/tensor.ts';
import { sum } from '../../../numbers.ts';
import { apply, concatenate, input, newGraph, output } from '../../core/graph.ts';
import { plan } from '../../core/plan.ts';
import { weightStore } from '../../core/weight-store.ts';
import type { Attached } from '../../evaluation/denoiser.ts';
import type { Network } from '../../evaluation/evaluation.ts';
import { parametersOf } from '../../files/parameters.ts';
import { lookUp } from '../../networks/layers.ts';
import { timeTable } from '../../networks/time-embedding.ts';
import {
  crossAttentions,
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
  unet2dConditionTensors,
} from '../../networks/unet2d-condition.ts';
import type { UNet2DConditionConfig } from '../../networks/unet2d-condition-config.ts';
import type { Value } from '../../ops/value.ts';
import { encodePrompts, readTextEncoder, type TextEncoderFolders } from '../../text/prompt-encoder.ts';
import type { FamilyNetwork, NetworkRequest } from '../family.ts';
import { imageEncoder, latentShape, type VaeFolder } from '../latent.ts';

/** Default of `TextRequest.keptBytes`. */
const KEPT_BYTES = 2 ** 30;

/** Default of `TextRequest.bindingBytes`: what every device binds at once. */
const BINDING_BYTES = 2 ** 27;

/** What the network is built from, with the folders of the text encoder and the tokenizer. */
export interface TextNetworkConfig extends TextEncoderFolders {
  readonly unet: UNet2DConditionConfig;
  readonly vae: VaeFolder;
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

/** Transposes contexts [prompts, tokens, channels] to rows of channels. */
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
    keptBytes = KEPT_BYTES,
    bindingBytes = BINDING_BYTES,
  }: TextRequest,
): Promise<FamilyNetwork & Required<Pick<FamilyNetwork, 'attach'>>> {
  const { unet, vae } = config;
  const prompts = candidates.map(({ prompt }) => prompt!);
  const parameters = parametersOf(file, unet2dConditionTensors(unet));
  const layers = crossAttentions(unet);
  const textEncoder = await readTextEncoder(config);
  const tokens = textEncoder.tokenizer.length;
  const shapeOf = (inner: number): Shape => [inner, prompts.length, tokens, 1];
  const context = partsOf('context', shapeOf(unet.crossAttentionDim), bindingBytes);
  const bytes = layers.map(({ inner }) => storageBytes(shapeOf(inner)));
  const kept =
    2 * sum(bytes) <= keptBytes &&
    [...bytes, storageBytes(shapeOf(unet.crossAttentionDim))].every((size) => size <= bindingBytes);

  const times = timeTable(unet, levels);

  const network: Network = {
    image: latentShape(vae, inputShape),
    shared(graph, sample, level) {
      const time = lookUp(graph, times, levels.length, level);
      return unet2dConditionShared(graph, parameters, unet, { sample, time });
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
      return unet2dCondition(graph, parameters, unet, { shared, crossAttention });
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
      const encoder = await imageEncoder(device, vae, inputShape, weightDtype);
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
