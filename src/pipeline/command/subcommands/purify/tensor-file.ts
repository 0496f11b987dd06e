// Writes a safetensors file of images that come one after the other. Until the end, their values are kept in a file next to
// it, not in memory.

import { randomBytes } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { UsageError } from '../../../../errors.ts';
import type { TensorData } from '../../../../graph/files/tensor-data.ts';
import { writeSafetensors } from '../../../../graph/node/write-safetensors.ts';
import { systemCode } from '../../../images/failures.ts';

export type TensorFileWriter = Awaited<ReturnType<typeof tensorFileWriter>>;

/** Makes a writer of a safetensors file. It throws `UsageError` if the file cannot be written. */
export async function tensorFileWriter(path: string) {
  const waiting = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  const refuse = (error: unknown): never => {
    const code = systemCode(error);
    if (code === undefined) throw error;
    throw new UsageError(`${path}: cannot be written (${code})`);
  };
  const file = await open(waiting, 'wx+').catch(refuse);
  const tensors = new Map<string, TensorData>();
  let end = 0;
  return {
    async add(name: string, values: Float32Array, shape: readonly number[]) {
      const { byteLength } = values;
      const at = end;
      end += byteLength;
      await file
        .write(new Uint8Array(values.buffer, values.byteOffset, byteLength), 0, byteLength, at)
        .catch(refuse);
      const read = async () => (await file.read(new Uint8Array(byteLength), 0, byteLength, at)).buffer;
      tensors.set(name, { dtype: 'F32', shape, data: { byteLength, read } });
    },
    /** Writes what was added, whole or not at all. */
    finish: () => writeSafetensors(path, tensors).catch(refuse),
    /** Removes everything but the finished file. */
    async close() {
      await file.close();
      await rm(waiting, { force: true });
    },
  };
}
