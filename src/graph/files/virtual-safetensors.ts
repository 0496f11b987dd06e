// A safetensors file that is made of tensors elsewhere: ranges of other files, or bytes that are computed when they are
// read. Whoever reads safetensors files reads it too, tensor by tensor.

import { product } from '../../numbers.ts';
import type { OpenFile } from './files.ts';
import { DTYPE_BITS, type SafetensorsDtype } from './safetensors-header.ts';
import { headerBytes, inFileOrder } from './tensor-data.ts';

/** A tensor whose bytes are read when they are needed. */
export interface VirtualTensor {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Fills `into` with the tensor's bytes, little-endian, from byte `from` on. @throws ModelError if they cannot be read. */
  read(from: number, into: Uint8Array): Promise<void>;
}

/**
 * Returns an open safetensors file of these tensors, in the order of `inFileOrder`. `close` is called when it is closed.
 * @throws ShapeError if two tensors have one name, or a name is reserved.
 */
export function virtualSafetensors(
  tensors: Iterable<readonly [name: string, tensor: VirtualTensor]>,
  metadata: ReadonlyMap<string, string> = new Map(),
  close: () => Promise<void> = async () => {},
): OpenFile {
  const bytesOf = ({ dtype, shape }: VirtualTensor): number => (product(shape) * DTYPE_BITS[dtype]) / 8;
  const readWhole = async (tensor: VirtualTensor): Promise<Uint8Array> => {
    const bytes = new Uint8Array(bytesOf(tensor));
    await tensor.read(0, bytes);
    return bytes;
  };
  const stored = [...tensors].map(([name, tensor]) => {
    const data = { byteLength: bytesOf(tensor), read: () => readWhole(tensor) };
    return [name, { dtype: tensor.dtype, shape: tensor.shape, data, tensor }] as const;
  });
  const ordered = inFileOrder(stored);
  const header = headerBytes(ordered, metadata);
  let end = header.length;
  const places = ordered.map(([, { tensor, data }]) => {
    const begin = end;
    end += data.byteLength;
    return { tensor, begin, end };
  });
  return {
    size: end,
    async read(offset, into) {
      const last = Math.min(end, offset + into.length);
      if (offset < header.length) into.set(header.subarray(offset, Math.min(last, header.length)));
      for (const { tensor, begin, end } of places) {
        const [from, to] = [Math.max(begin, offset), Math.min(end, last)];
        if (from < to) await tensor.read(from - begin, into.subarray(from - offset, to - offset));
      }
      return Math.max(0, last - offset);
    },
    close,
  };
}
