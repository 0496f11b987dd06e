// A file of named tensors in any of the formats in which checkpoints are distributed: safetensors or torch.save's.

import type { Files, OpenFile } from './files.ts';
import { openSafetensors } from './safetensors.ts';
import { isTorch } from './torch-tensors.ts';
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

/** Returns whether a file begins like one of torch.save, or like any pickle. */
export async function isTorchFile(file: OpenFile): Promise<boolean> {
  const bytes = new Uint8Array(16);
  return isTorch(bytes.subarray(0, await file.read(0, bytes)));
}

/** Opens a checkpoint, reading only what says which tensors there are. Throws what `openSafetensors` throws. */
export async function openCheckpoint(files: Files, name: string): Promise<CheckpointFile> {
  const { path, tensors, metadata, readBytes, close } = await openSafetensors(files, name);
  const virtual = [...tensors.values()].map(({ name, dtype, shape }): [string, VirtualTensor] => [
    name,
    { dtype, shape, read: (from, into) => readBytes(name, from, into) },
  ]);
  return { path, tensors: new Map(virtual), metadata, close };
}
