// A file of named tensors in any of the formats in which checkpoints are distributed: safetensors, or torch.save's (`.ckpt`,
// `.pt`, `.bin`). Its first bytes tell the format, because names are often wrong.

import { ModelError } from '../../errors.ts';
import type { Files, OpenFile } from './files.ts';
import { quote } from './json.ts';
import type { Pickled } from './pickle.ts';
import { openSafetensors } from './safetensors.ts';
import { readTorch, TorchTensor } from './torch-file.ts';
import type { VirtualTensor } from './virtual-safetensors.ts';

/** An open checkpoint. Tensors are read from it when they are needed. */
export interface CheckpointFile {
  /** The file in messages. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, VirtualTensor>;
  /** The `__metadata__` of safetensors. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Closes the file after the reads under way. */
  close(): Promise<void>;
}

/** Returns whether bytes begin like a file of torch.save: as a zip archive or as a pickle. */
const isTorch = (bytes: Uint8Array): boolean =>
  (bytes[0] === 0x50 && bytes[1] === 0x4b) || (bytes[0] === 0x80 && bytes[1]! >= 2 && bytes[1]! <= 5);

/** Returns whether a file begins like one of torch.save, or like any pickle. */
export async function isTorchFile(file: OpenFile): Promise<boolean> {
  const bytes = new Uint8Array(16);
  return isTorch(bytes.subarray(0, await file.read(0, bytes)));
}

/**
 * Returns the dictionary of tensors in a file of torch.save: under `state_dict`, as training frameworks save it, or the only
 * entry, or the whole.
 */
function stateDict(value: Pickled, path: string): ReadonlyMap<string | number, Pickled> {
  if (!(value instanceof Map)) throw new ModelError(`${path}: expected a dictionary of tensors`);
  const inner = value.get('state_dict') ?? (value.size === 1 ? [...value.values()][0] : undefined);
  return inner instanceof Map ? inner : value;
}

async function openTorch(file: OpenFile, path: string): Promise<CheckpointFile> {
  const state = stateDict(await readTorch(file, path, { unknown: 'ignore' }), path);
  const tensors = new Map<string, VirtualTensor>();
  for (const [name, value] of state)
    if (value instanceof TorchTensor) {
      if (name === '' || name === '__proto__' || name === '__metadata__')
        throw new ModelError(`${path}: tensor ${quote(String(name))} has a name that is not accepted`);
      tensors.set(String(name), value);
    }
  if (tensors.size === 0) throw new ModelError(`${path}: expected a dictionary of tensors, got none`);
  return { path, tensors, metadata: new Map(), close: () => file.close() };
}

/**
 * Opens a file of tensors, reading only what says which there are. Nothing of a pickle is executed; objects in it other than
 * tensors are ignored.
 * @throws ModelError, one sentence that begins with the file, if it is neither a safetensors file nor one of torch.save.
 */
export async function openCheckpoint(files: Files, name: string): Promise<CheckpointFile> {
  const path = files.describe(name);
  const file = await files.open(name);
  try {
    if (await isTorchFile(file)) return await openTorch(file, path);
  } catch (error) {
    await file.close();
    throw error;
  }
  await file.close();
  const opened = await openSafetensors(files, name);
  const tensors = [...opened.tensors.values()].map(({ name, dtype, shape }): [string, VirtualTensor] => [
    name,
    { dtype, shape, read: (from, into) => opened.readBytes(name, from, into) },
  ]);
  return { path, tensors: new Map(tensors), metadata: opened.metadata, close: opened.close };
}
