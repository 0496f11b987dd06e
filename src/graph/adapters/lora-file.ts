// A LoRA file (Hu et al. 2022): for each layer that it changes, the factors of a matrix of low rank, or the whole change.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import type { CheckpointFile } from '../files/checkpoint-file.ts';
import { checked, parseJson, quote } from '../files/json.ts';
import type { VirtualTensor } from '../files/virtual-safetensors.ts';
import { type LoraKey, type LoraPart, loraKey, otherKind } from './lora-keys.ts';
import { readValues } from './values.ts';

/** A tensor of the file. */
export interface LoraTensor {
  readonly name: string;
  readonly tensor: VirtualTensor;
}

/** What the file holds for one layer. */
export interface LoraLayer extends Omit<LoraKey, 'part'> {
  readonly parts: ReadonlyMap<LoraPart, LoraTensor>;
  /** The first of its tensors in the file, for messages. */
  readonly first: string;
  /** The factor of up x down: alpha / rank; 1 if there is no alpha. */
  readonly scale: number;
}

/** What peft's configuration says about the scale of layers. */
interface Scaling {
  readonly alpha: number;
  /** Other alphas by the ends of the names of layers. */
  readonly patterns: Readonly<Record<string, number>>;
  /** Set if the product is divided by the root of the rank (Kalajdzievski 2023). */
  readonly byRoot: boolean;
}

const config = z.object({
  lora_alpha: z.number().optional(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
  use_rslora: z.boolean().nullish(),
  use_dora: z.boolean().nullish(),
  peft_type: z.string().nullish(),
});

/** Returns the scaling in a configuration of peft; undefined if it says nothing. @throws ModelError naming `file`. */
function scalingOf(value: unknown, file: string): Scaling | undefined {
  const {
    lora_alpha: alpha,
    alpha_pattern: patterns,
    use_rslora: byRoot,
    use_dora: dora,
    peft_type: type,
  } = checked(config, value, file);
  const kind = dora ? 'a DoRA' : type != null && type !== 'LORA' ? quote(type) : undefined;
  if (kind) throw new ModelError(`${file}: describes ${kind}, which is not supported; expected a LoRA`);
  const pattern = Object.keys(patterns ?? {}).find((key) => !/^[\w.]+$/.test(key));
  if (pattern !== undefined)
    throw new ModelError(`${file}: expected names of layers in alpha_pattern, got ${quote(pattern)}`);
  return alpha === undefined ? undefined : { alpha, patterns: patterns ?? {}, byRoot: byRoot ?? false };
}

/** The key under which diffusers stores peft's configurations, with the networks' names before their keys. */
const METADATA = 'lora_adapter_metadata';

/** Returns the scaling of the networks that diffusers' metadata describes. */
function scalingByComponent({ metadata, path }: CheckpointFile): ReadonlyMap<string, Scaling> {
  const text = metadata.get(METADATA);
  if (text === undefined) return new Map();
  const file = `${path}: ${METADATA}`;
  const all = checked(
    z.record(z.string(), z.unknown()),
    parseJson(new TextEncoder().encode(text), file),
    file,
  );
  const byComponent = new Map<string, Record<string, unknown>>();
  for (const [key, value] of Object.entries(all)) {
    const dot = key.indexOf('.');
    const component = key.slice(0, Math.max(0, dot));
    byComponent.set(component, { ...byComponent.get(component), [key.slice(dot + 1)]: value });
  }
  const found = new Map<string, Scaling>();
  for (const [component, value] of byComponent) {
    const scaling = scalingOf(value, file);
    if (scaling) found.set(component, scaling);
  }
  return found;
}

const elements = ({ shape }: VirtualTensor): number => shape.reduce((all, side) => all * side, 1);

/** Returns the value of an alpha. @throws ModelError unless it is one finite number. */
async function readAlpha({ name, tensor }: LoraTensor, path: string): Promise<number> {
  if (elements(tensor) !== 1)
    throw new ModelError(
      `${path}: tensor ${quote(name)}: expected one number, got [${tensor.shape.join(', ')}]`,
    );
  return (await readValues(tensor, name, path))[0]!;
}

/** @throws ModelError unless the parts of a layer make a whole change. */
function checkParts(parts: ReadonlyMap<LoraPart, LoraTensor>, path: string): void {
  const [down, up] = [parts.get('down'), parts.get('up')];
  const [name, missing] = down ? [down.name, 'lora_up'] : [up?.name, 'lora_down'];
  if ((down === undefined) !== (up === undefined))
    throw new ModelError(`${path}: tensor ${quote(name)} has no ${missing} that belongs to it`);
  const factor = parts.get('mid') ?? parts.get('alpha');
  if (factor && !down)
    throw new ModelError(
      `${path}: tensor ${quote(factor.name)} has no lora_down and lora_up that belong to it`,
    );
  const diff = parts.get('diff');
  if (diff && down)
    throw new ModelError(
      `${path}: tensor ${quote(diff.name)} changes a layer that ${quote(down.name)} changes too`,
    );
}

/** Returns the factor of a layer's product, given its rank. */
async function scaleOf(
  parts: ReadonlyMap<LoraPart, LoraTensor>,
  scaling: Scaling | undefined,
  layer: string,
  path: string,
): Promise<number> {
  const rank = parts.get('down')?.tensor.shape[0] ?? 1;
  const alpha = parts.get('alpha');
  if (alpha) return (await readAlpha(alpha, path)) / rank;
  if (!scaling) return 1;
  const pattern = Object.keys(scaling.patterns).find((key) =>
    `_${layer}`.endsWith(`_${key.replaceAll('.', '_')}`),
  );
  const value = pattern === undefined ? scaling.alpha : scaling.patterns[pattern]!;
  return value / (scaling.byRoot ? Math.sqrt(rank) : rank);
}

/**
 * Reads which layers a LoRA changes. `adapterConfig` is the content of peft's `adapter_config.json` next to the file, with
 * its name for messages.
 * @throws ModelError, one sentence, if the file is not a LoRA, or parts are missing or double.
 */
export async function readLora(
  file: CheckpointFile,
  adapterConfig?: { readonly value: unknown; readonly file: string },
): Promise<LoraLayer[]> {
  const { path, tensors } = file;
  const layers = new Map<string, { key: LoraKey; first: string; parts: Map<LoraPart, LoraTensor> }>();
  for (const [name, tensor] of tensors) {
    const other = otherKind(name);
    if (other)
      throw new ModelError(
        `${path}: tensor ${quote(name)} is part of ${other}, which is not supported; expected a LoRA (lora_down and lora_up)`,
      );
    const key = loraKey(name);
    if (!key)
      throw new ModelError(`${path}: tensor ${quote(name)} is not one of a LoRA (lora_down, lora_up, alpha)`);
    const id = `${key.component} ${key.layer}`;
    const layer = layers.get(id) ?? { key, first: name, parts: new Map<LoraPart, LoraTensor>() };
    layers.set(id, layer);
    const known = layer.parts.get(key.part);
    if (known)
      throw new ModelError(
        `${path}: the tensors ${quote(known.name)} and ${quote(name)} are the same part of a layer`,
      );
    layer.parts.set(key.part, { name, tensor });
  }
  if (layers.size === 0) throw new ModelError(`${path}: expected a LoRA, got a file without tensors`);
  const scalings = scalingByComponent(file);
  const own = adapterConfig && scalingOf(adapterConfig.value, adapterConfig.file);
  return Promise.all(
    [...layers.values()].map(async ({ key: { component, layer }, first, parts }) => {
      checkParts(parts, path);
      const scale = await scaleOf(parts, scalings.get(component ?? '') ?? own, layer, path);
      return { component, layer, first, parts, scale };
    }),
  );
}
