// The tensors that a network must have, by name and shape, and the check of a weight file against them.

import { ModelError } from '../../errors.ts';
import { quote } from './json.ts';
import type { TensorFile, TensorInfo } from './safetensors.ts';

/** A tensor that a model needs. */
export interface ExpectedTensor {
  readonly name: string;
  /** As PyTorch stores it: convolutions [out, in, h, w], linear layers [out, in]. */
  readonly shape: readonly number[];
  /** What checkpoints of other versions call it. */
  readonly oldName?: string;
}

/** A list of tensors that grows by layers, under the names that PyTorch gives to their parts. */
export interface TensorList {
  readonly all: ExpectedTensor[];
  conv(name: string, from: number, to: number, kernel?: number): void;
  linear(name: string, from: number, to: number, bias?: boolean): void;
  /** Weight and bias of a normalisation. */
  norm(name: string, channels: number): void;
  /** diffusers' ResnetBlock2D; `embedding` are the channels in and out of the time embedding's projection. */
  resnet(
    name: string,
    from: number,
    to: number,
    embedding?: { readonly channels: number; readonly scaleShift: boolean },
  ): void;
}

/** An empty list. */
export function tensorList(): TensorList {
  const all: ExpectedTensor[] = [];
  const add = (name: string, ...shape: readonly number[]): void => void all.push({ name, shape });
  const list: TensorList = {
    all,
    conv(name, from, to, kernel = 3) {
      add(`${name}.weight`, to, from, kernel, kernel);
      add(`${name}.bias`, to);
    },
    linear(name, from, to, bias = true) {
      add(`${name}.weight`, to, from);
      if (bias) add(`${name}.bias`, to);
    },
    norm(name, channels) {
      add(`${name}.weight`, channels);
      add(`${name}.bias`, channels);
    },
    resnet(name, from, to, embedding) {
      list.norm(`${name}.norm1`, from);
      list.conv(`${name}.conv1`, from, to);
      if (embedding)
        list.linear(`${name}.time_emb_proj`, embedding.channels, embedding.scaleShift ? 2 * to : to);
      list.norm(`${name}.norm2`, to);
      list.conv(`${name}.conv2`, to, to);
      if (from !== to) list.conv(`${name}.conv_shortcut`, from, to, 1);
    },
  };
  return list;
}

/**
 * Checks that a file holds exactly the expected tensors, in their shapes, as F32, F16 or BF16. Returns where each
 * is, by its current name (`TensorInfo.name` is the name to read it by). Throws `ModelError`: one sentence with
 * the file, what is wrong, and the first few tensors concerned.
 */
export function checkTensors(
  expected: readonly ExpectedTensor[],
  file: Pick<TensorFile, 'path' | 'tensors'>,
): ReadonlyMap<string, TensorInfo> {
  const found = new Map<string, TensorInfo>();
  const extra = new Set(file.tensors.keys());
  const missing: string[] = [];
  const shapes: string[] = [];
  const dtypes: string[] = [];
  for (const { name, shape, oldName } of expected) {
    const info = file.tensors.get(name) ?? (oldName === undefined ? undefined : file.tensors.get(oldName));
    if (!info) {
      missing.push(quote(name));
      continue;
    }
    extra.delete(info.name);
    found.set(name, info);
    if (info.shape.length !== shape.length || info.shape.some((size, i) => size !== shape[i]))
      shapes.push(`${quote(info.name)} has [${info.shape.join(', ')}], wanted [${shape.join(', ')}]`);
    if (info.dtype !== 'F32' && info.dtype !== 'F16' && info.dtype !== 'BF16')
      dtypes.push(`${quote(info.name)} is ${info.dtype}, wanted F32, F16 or BF16`);
  }
  const faults = [
    complain('missing tensor', missing),
    complain('unexpected tensor', [...extra].map(quote)),
    complain('wrong shape', shapes),
    complain('wrong dtype', dtypes),
  ].filter((fault) => fault !== undefined);
  if (faults.length > 0) throw new ModelError(`${file.path}: ${faults.join('; ')}`);
  return found;
}

function complain(what: string, list: readonly string[]): string | undefined {
  if (list.length === 0) return undefined;
  const shown = list.slice(0, 3).join(', ');
  return list.length <= 3
    ? `${what}${list.length === 1 ? '' : 's'} ${shown}`
    : `${list.length} ${what}s, first ${shown}`;
}
