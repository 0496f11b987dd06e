// Writing safetensors: purified images, recorded noise and trained weights.

import { randomBytes } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { ShapeError } from '../../errors.ts';
import { DTYPE_BITS, MAX_HEADER_BYTES, type SafetensorsDtype } from './safetensors-header.ts';

/** A tensor to write: `data` holds exactly the bytes of `dtype` and `shape`, little-endian. */
export interface TensorData {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView | StoredBytes;
}

/** Bytes that are read when they are written, so that not all tensors are in memory at once. */
export interface StoredBytes {
  readonly byteLength: number;
  read(): Promise<Uint8Array>;
}

const bytesOf = async ({ data }: TensorData): Promise<Uint8Array> =>
  'read' in data ? data.read() : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/**
 * Writes a safetensors file: whole or not at all (a temporary file in the same folder, flushed, then renamed),
 * its header padded so that the data starts at a multiple of 8, wide dtypes first so that every tensor is
 * aligned, names in order within a dtype so that equal content gives equal bytes.
 * Throws `ShapeError` when a tensor's data does not match its dtype and shape, or a name is reserved.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<readonly [name: string, tensor: TensorData]>,
  metadata: Iterable<readonly [key: string, value: string]> = [],
): Promise<void> {
  const sorted = [...tensors].sort(
    ([nameA, a], [nameB, b]) =>
      DTYPE_BITS[b.dtype] - DTYPE_BITS[a.dtype] || (nameA < nameB ? -1 : nameA > nameB ? 1 : 0),
  );
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

function headerBytes(
  tensors: readonly (readonly [string, TensorData])[],
  metadata: ReadonlyMap<string, string>,
): Uint8Array {
  const entries: string[] = [];
  if (metadata.size > 0) {
    const pairs = [...metadata].map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
    entries.push(`"__metadata__":{${pairs.join(',')}}`);
  }
  const seen = new Set<string>();
  let end = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    const say = (what: string): ShapeError =>
      new ShapeError(`writeSafetensors: tensor ${JSON.stringify(name)} ${what}`);
    if (name === '' || name === '__metadata__' || name === '__proto__') throw say('has a reserved name');
    if (seen.has(name)) throw say('is given twice');
    seen.add(name);
    if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0))
      throw say(`has shape [${shape.join(', ')}], wanted whole numbers from 0 on`);
    const wanted = (shape.reduce((product, size) => product * size, 1) * DTYPE_BITS[dtype]) / 8;
    if (wanted !== data.byteLength)
      throw say(
        `has ${data.byteLength} bytes, dtype ${dtype} and shape [${shape.join(', ')}] want ${wanted}`,
      );
    const offsets = [end, end + data.byteLength];
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: offsets })}`);
    end += data.byteLength;
  }
  const json = new TextEncoder().encode(`{${entries.join(',')}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > MAX_HEADER_BYTES)
    throw new ShapeError(
      `writeSafetensors: a header of ${padded} bytes, at most ${MAX_HEADER_BYTES} can be read back`,
    );
  const out = new Uint8Array(8 + padded).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(padded), true);
  out.set(json, 8);
  return out;
}
