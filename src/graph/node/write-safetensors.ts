// Writing safetensors files: purified images, recorded noise and trained weights.

import { randomBytes } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { headerBytes, inFileOrder, type TensorData } from '../files/tensor-data.ts';

const bytesOf = async ({ data }: TensorData): Promise<Uint8Array> =>
  'read' in data ? data.read() : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/**
 * Writes a safetensors file, whole or not at all: a temporary file in the same folder is written, flushed and then
 * renamed. Every tensor is aligned, and equal content gives equal bytes.
 * @throws ShapeError if a tensor's data does not match its dtype and shape, or a name is reserved.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<readonly [name: string, tensor: TensorData]>,
  metadata: Iterable<readonly [key: string, value: string]> = [],
): Promise<void> {
  const sorted = inFileOrder(tensors);
  const header = headerBytes(sorted, new Map(metadata));
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const handle = await open(temporary, 'wx');
    try {
      await handle.appendFile(header);
      for (const [, tensor] of sorted) await handle.appendFile(await bytesOf(tensor));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
