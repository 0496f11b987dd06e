// The tensors that a network needs, by name and shape, and the check of a weight file against them.

import { ModelError } from '../../errors.ts';
import { quote } from './json.ts';
import type { TensorFile, TensorInfo } from './safetensors.ts';

/** A tensor that a network needs. */
export interface ExpectedTensor {
  readonly name: string;
  /** The shape in PyTorch's order: convolutions [out, in, h, w], linear layers [out, in]. */
  readonly shape: readonly number[];
  /** The name of the tensor in checkpoints that other versions of a library wrote. */
  readonly oldName?: string | undefined;
}

/**
 * Checks that a file holds exactly the expected tensors, in their shapes, as F32, F16 or BF16. Returns the tensors by
 * their current names; `TensorInfo.name` is the name under which the file has them.
 * @throws ModelError with one sentence: the file, what is wrong, and the first few tensors concerned.
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
      shapes.push(`${quote(info.name)}: expected [${shape.join(', ')}], got [${info.shape.join(', ')}]`);
    if (info.dtype !== 'F32' && info.dtype !== 'F16' && info.dtype !== 'BF16')
      dtypes.push(`${quote(info.name)}: expected F32, F16 or BF16, got ${info.dtype}`);
  }
  const faults = [
    faultOf('missing tensor', missing),
    faultOf('unexpected tensor', [...extra].map(quote)),
    faultOf('wrong shape', shapes),
    faultOf('wrong dtype', dtypes),
  ].filter((fault) => fault !== undefined);
  if (faults.length > 0) throw new ModelError(`${file.path}: ${faults.join('; ')}`);
  return found;
}

/** Returns the part of the message about one kind of fault; undefined if no tensor has it. */
function faultOf(kind: string, tensors: readonly string[]): string | undefined {
  if (tensors.length === 0) return undefined;
  const shown = tensors.slice(0, 3).join(', ');
  return tensors.length <= 3
    ? `${kind}${tensors.length === 1 ? '' : 's'} ${shown}`
    : `${tensors.length} ${kind}s, first ${shown}`;
}
