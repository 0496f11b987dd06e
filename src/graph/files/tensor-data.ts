// Tensors in memory that are to be written as a safetensors file, and the header of that file.

import { ShapeError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import { DTYPE_BITS, MAX_HEADER_BYTES, type SafetensorsDtype } from './safetensors-header.ts';

/** A tensor to write: `data` holds exactly the bytes of `dtype` and `shape`, little-endian. */
export interface TensorData {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView | StoredBytes;
}

/** Bytes that are read only when they are written, so that not all tensors are in memory at once. */
export interface StoredBytes {
  readonly byteLength: number;
  read(): Promise<Uint8Array>;
}

/**
 * Orders tensors as they follow each other in a file: wide dtypes first, so that every tensor is aligned, and by name
 * within a dtype, so that equal content gives equal bytes.
 */
export const inFileOrder = <T extends readonly [name: string, tensor: TensorData]>(
  tensors: Iterable<T>,
): T[] =>
  [...tensors].sort(
    ([nameA, a], [nameB, b]) =>
      DTYPE_BITS[b.dtype] - DTYPE_BITS[a.dtype] || (nameA < nameB ? -1 : nameA > nameB ? 1 : 0),
  );

/**
 * Returns the first bytes of a safetensors file of these tensors, up to the first tensor's data; padded so that the data
 * starts at a multiple of 8.
 * @throws ShapeError if a tensor's data does not match its dtype and shape, or a name is reserved.
 */
export function headerBytes(
  tensors: readonly (readonly [name: string, tensor: TensorData])[],
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
    const refuse = (what: string): ShapeError =>
      new ShapeError(`writeSafetensors: tensor ${JSON.stringify(name)} ${what}`);
    if (name === '' || name === '__metadata__' || name === '__proto__') throw refuse('has a reserved name');
    if (seen.has(name)) throw refuse('is given twice');
    seen.add(name);
    if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0))
      throw refuse(`has the shape [${shape.join(', ')}]; expected whole numbers from 0 on`);
    const expected = (product(shape) * DTYPE_BITS[dtype]) / 8;
    if (expected !== data.byteLength)
      throw refuse(
        `of dtype ${dtype} and shape [${shape.join(', ')}]: expected ${expected} bytes, got ${data.byteLength}`,
      );
    const offsets = [end, end + data.byteLength];
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: offsets })}`);
    end += data.byteLength;
  }
  const json = new TextEncoder().encode(`{${entries.join(',')}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > MAX_HEADER_BYTES)
    throw new ShapeError(
      `writeSafetensors: expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${padded}; write fewer tensors`,
    );
  const out = new Uint8Array(8 + padded).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(padded), true);
  out.set(json, 8);
  return out;
}
