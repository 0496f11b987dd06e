// The tensors of a file of torch.save (`.ckpt`, `.pt`, `.bin`), presented as a safetensors file. Nothing of the file is
// executed, and tensors are read from it when they are needed.

import { ModelError } from '../../errors.ts';
import type { OpenFile } from './files.ts';
import { quote } from './json.ts';
import type { Pickled } from './pickle.ts';
import { isZip } from './stored-zip.ts';
import { readTorch, TorchTensor } from './torch-file.ts';
import { virtualSafetensors } from './virtual-safetensors.ts';

/** Returns whether bytes begin like a safetensors file: with the length of its header, and that. */
const isSafetensors = (bytes: Uint8Array): boolean => bytes[6] === 0 && bytes[7] === 0 && bytes[8] === 0x7b;

/** Returns whether bytes begin like a file of torch.save: as a zip archive, or as a pickle of protocol 2 to 5. */
export const isTorch = (bytes: Uint8Array): boolean =>
  isZip(bytes) || (bytes[0] === 0x80 && bytes[1]! >= 2 && bytes[1]! <= 5 && !isSafetensors(bytes));

/**
 * Returns the dictionary of tensors in a file of torch.save: under `state_dict`, as training frameworks save it, or the only
 * entry, or the whole.
 */
function stateDict(value: Pickled, path: string): ReadonlyMap<string | number, Pickled> {
  if (!(value instanceof Map)) throw new ModelError(`${path}: expected a dictionary of tensors`);
  const inner = value.get('state_dict') ?? (value.size === 1 ? [...value.values()][0] : undefined);
  return inner instanceof Map ? inner : value;
}

/**
 * Returns the tensors of an open file of torch.save as a safetensors file, which closes it. Other entries are left out.
 * @throws ModelError, one sentence that begins with `path`, if the file is broken, or has no tensors.
 */
export async function torchAsSafetensors(file: OpenFile, path: string): Promise<OpenFile> {
  const state = stateDict(await readTorch(file, path, { unknown: 'ignore' }), path);
  const tensors: [string, TorchTensor][] = [];
  for (const [key, value] of state) {
    if (!(value instanceof TorchTensor)) continue;
    const name = String(key);
    if (name === '' || name === '__proto__' || name === '__metadata__')
      throw new ModelError(`${path}: tensor ${quote(name)} has a name that is not accepted`);
    tensors.push([name, value]);
  }
  if (tensors.length === 0) throw new ModelError(`${path}: expected a dictionary of tensors, got none`);
  if (new Set(tensors.map(([name]) => name)).size < tensors.length)
    throw new ModelError(`${path}: two tensors have one name`);
  return virtualSafetensors(tensors, new Map(), () => file.close());
}
