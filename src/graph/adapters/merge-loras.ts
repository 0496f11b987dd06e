// LoRAs merged into a model: the model's files, in which the weights that the LoRAs change are computed when they are read.
// A tensor is merged in f64 and rounded to f32 once; tensors that no LoRA changes are read as they are.

import { ModelError } from '../../errors.ts';
import { type CheckpointFile, openCheckpoint } from '../files/checkpoint-file.ts';
import { type Files, nameIn, type OpenFile } from '../files/files.ts';
import { quote, readJson } from '../files/json.ts';
import { openTensorFile, type TensorFile, type TensorInfo } from '../files/safetensors.ts';
import { type VirtualFile, withVirtualFiles } from '../files/virtual-files.ts';
import { type VirtualTensor, virtualSafetensors } from '../files/virtual-safetensors.ts';
import { findWeights } from '../folders/weights.ts';
import { biasChange, type Change, keepLast, weightChange } from './lora-change.ts';
import { type LoraLayer, readLora } from './lora-file.ts';
import { type Component, diffusersLayer } from './lora-keys.ts';

/** A LoRA: its file, and the factor of its change. */
export interface LoraSource {
  readonly files: Files;
  readonly name: string;
  readonly weight: number;
}

/** The names of the components' weights, without `.safetensors`, in the order in which a layer is looked for. */
const STEMS: Readonly<Record<Component, string>> = {
  unet: 'diffusion_pytorch_model',
  transformer: 'diffusion_pytorch_model',
  text_encoder: 'model',
  text_encoder_2: 'model',
};
const COMPONENTS = Object.keys(STEMS) as Component[];

/** Marks a merged file whose tensors were all f16, so that it is still taken for a file of halves. */
export const MERGED_FROM = 'merged from';

/** The weights of a component, and what they were called before any LoRA. */
interface Base {
  readonly component: Component;
  readonly file: TensorFile;
  /** The name of the file, as in `Files`. */
  readonly name: string;
  /** The model's layers by their names with '_' between modules. */
  readonly layers: ReadonlyMap<string, string>;
  /** `layers_per_block` of a UNet. */
  readonly perBlock: number;
}

/** Opens the weights of a component; returns undefined if the model has none. */
async function openBase(files: Files, component: Component): Promise<Base | undefined> {
  if (!(await files.list(component))) return undefined;
  const name = await findWeights(files, component, STEMS[component]);
  const file = await openTensorFile(files, name);
  const names = [...file.tensors.keys()].flatMap(
    (tensor) => /^(.+)\.(?:weight|bias)$/.exec(tensor)?.[1] ?? [],
  );
  const resnets = names.filter((layer) => /^down_blocks\.0\.resnets\.\d+\.conv1$/.test(layer));
  return {
    component,
    file,
    name,
    layers: new Map(names.map((layer) => [layer.replaceAll('.', '_'), layer])),
    perBlock: new Set(resnets).size,
  };
}

/** Returns the names that a layer of a LoRA may have in a component. */
function aliases(layer: string, { component, perBlock }: Base): string[] {
  if (component === 'unet') return [layer, diffusersLayer(layer, perBlock)];
  if (component === 'transformer') return [layer];
  const current = layer.replace(/_to_([qkv])$/, '_$1_proj').replace(/_to_out_0$/, '_out_proj');
  return [current, `text_model_${current}`, current.replace(/^text_model_/, '')];
}

/** Finds the layer of the model that a layer of a LoRA changes; undefined if there is none. */
function findLayer({ component, layer }: LoraLayer, bases: readonly Base[]): [Base, string] | undefined {
  for (const base of bases) {
    if (component !== undefined && base.component !== component) continue;
    for (const alias of aliases(layer, base)) {
      const found = base.layers.get(alias);
      if (found !== undefined) return [base, found];
    }
  }
  return undefined;
}

/** The opened files of a merge, and the changes of every tensor by component. */
interface Merge {
  readonly bases: readonly Base[];
  readonly changes: ReadonlyMap<Component, ReadonlyMap<string, readonly Change[]>>;
  close(): Promise<void>;
}

/** Reads peft's configuration, if it lies next to a LoRA. */
async function adapterConfig({ files, name }: LoraSource) {
  const file = nameIn(name.slice(0, Math.max(0, name.lastIndexOf('/'))), 'adapter_config.json');
  const folder = file.slice(0, Math.max(0, file.lastIndexOf('/')));
  if (!/(?:^|\/)adapter_model\./.test(name) || !(await files.list(folder))?.includes('adapter_config.json'))
    return undefined;
  return { value: await readJson(files, file), file: files.describe(file) };
}

/**
 * Opens a model's weights and the LoRAs, and finds the changes.
 * @throws ModelError naming the first tensor that does not fit the model.
 */
async function openMerge(files: Files, loras: readonly LoraSource[]): Promise<Merge> {
  const open: { close(): Promise<void> }[] = [];
  const close = async () => {
    await Promise.all(open.splice(0).map((file) => file.close()));
  };
  try {
    const bases: Base[] = [];
    for (const component of COMPONENTS) {
      const base = await openBase(files, component);
      if (!base) continue;
      bases.push(base);
      open.push(base.file);
    }
    const changes = new Map<Component, Map<string, Change[]>>();
    for (const lora of loras) {
      const file = await openCheckpoint(lora.files, lora.name);
      open.push(file);
      await collect(file, await readLora(file, await adapterConfig(lora)), lora.weight, bases, changes);
    }
    return { bases, changes, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Adds the changes of one LoRA. */
async function collect(
  { path }: CheckpointFile,
  layers: readonly LoraLayer[],
  weight: number,
  bases: readonly Base[],
  changes: Map<Component, Map<string, Change[]>>,
): Promise<void> {
  const context = { path, weight, keep: keepLast() };
  const changed = new Map<string, string>();
  for (const lora of layers) {
    const found = findLayer(lora, bases);
    if (!found) {
      const { component } = lora;
      const place =
        component === undefined || bases.some((base) => base.component === component)
          ? `has no such layer${component === undefined ? '' : ` in its ${component}`}`
          : `has no ${component}`;
      throw new ModelError(
        `${path}: tensor ${quote(lora.first)} fits nothing: the model ${place}; this LoRA is for another base model`,
      );
    }
    const [{ component, file }, layer] = found;
    const before = changed.get(`${component} ${layer}`);
    if (before !== undefined)
      throw new ModelError(
        `${path}: the tensors ${quote(before)} and ${quote(lora.first)} change the same layer of the model`,
      );
    changed.set(`${component} ${layer}`, lora.first);
    for (const [ending, changeOf] of [
      ['weight', weightChange],
      ['bias', biasChange],
    ] as const) {
      const part = lora.parts.get(ending === 'bias' ? 'bias' : lora.parts.has('diff') ? 'diff' : 'down');
      const name = `${layer}.${ending}`;
      const target = file.tensors.get(name);
      if (part && !target)
        throw new ModelError(
          `${path}: tensor ${quote(part.name)} fits nothing: the model has no ${quote(name)}; this LoRA is for another base model`,
        );
      const change = target && changeOf(lora, target, context);
      if (!change) continue;
      const ofComponent = changes.get(component) ?? new Map<string, Change[]>();
      changes.set(component, ofComponent);
      ofComponent.set(name, [...(ofComponent.get(name) ?? []), change]);
    }
  }
}

/** Returns a tensor of the model with its changes, in f32. */
function merged(file: TensorFile, { name, shape }: TensorInfo, changes: readonly Change[]): VirtualTensor {
  return {
    dtype: 'F32',
    shape,
    async read(from, into) {
      const first = Math.floor(from / 4);
      const values = new Float32Array(Math.ceil((from + into.length) / 4) - first);
      await file.readPart(name, first, values);
      const sums = Float64Array.from(values);
      for (const change of changes) await change.add(sums, first);
      values.set(sums);
      into.set(new Uint8Array(values.buffer).subarray(from - 4 * first, from - 4 * first + into.length));
    },
  };
}

/** Returns the weights of a component with their changes, as a safetensors file. */
function mergedFile(
  { file }: Base,
  changes: ReadonlyMap<string, readonly Change[]>,
  close: () => Promise<void>,
) {
  const tensors = [...file.tensors.values()].map((info): [string, VirtualTensor] => {
    const { name, dtype, shape } = info;
    const own = changes.get(name);
    if (own) return [name, merged(file, info, own)];
    return [name, { dtype, shape, read: (from, into) => file.readBytes(name, from, into) }];
  });
  const halves = [...file.tensors.values()].every(({ dtype }) => dtype === 'F16');
  const metadata = new Map([...file.metadata, ...(halves ? [[MERGED_FROM, 'F16'] as const] : [])]);
  return virtualSafetensors(tensors, metadata, close);
}

/**
 * Returns a model's files with LoRAs merged into the weights of its networks: W + weight x alpha / rank x up x down for
 * each. All names and shapes are checked at once.
 * @throws ModelError, one sentence, if a file is not a LoRA, or naming the first tensor that does not fit the model.
 */
export async function mergeLoras(files: Files, loras: readonly LoraSource[]): Promise<Files> {
  if (loras.length === 0) return files;
  const { bases, changes, close } = await openMerge(files, loras);
  await close();
  const virtual = new Map<string, VirtualFile>();
  for (const { component, file } of bases) {
    if (!changes.has(component)) continue;
    const open = async (): Promise<OpenFile> => {
      const merge = await openMerge(files, loras);
      const base = merge.bases.find((one) => one.component === component)!;
      return mergedFile(base, merge.changes.get(component)!, merge.close);
    };
    virtual.set(`${component}/${STEMS[component]}.safetensors`, {
      description: `${file.path} with LoRA`,
      open,
    });
  }
  return withVirtualFiles(files, virtual);
}
