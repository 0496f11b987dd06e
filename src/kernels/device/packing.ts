// Converts weights from their natural order to the layout that a kernel reads. Parts of a weight are placed
// as they arrive from a file, so that memory never holds a second copy of a large weight.

import { f32ToF16 } from './half.ts';
import type { Packing } from './routine.ts';

/** Rows and columns of a block; both its source and its target fit into a core's first-level cache. */
const BLOCK = 32;

/** Returns a packing that transposes a matrix [rows, columns]; rows of the result are `pitch` elements apart. */
export function transposed(key: string, columns: number, pitch: number, dtype: Packing['dtype']): Packing {
  return {
    key,
    dtype,
    bytes: columns * pitch * (dtype === 'f16' ? 2 : 4),
    row: columns,
    place(part, from, packed) {
      const out = dtype === 'f16' ? new Uint16Array(packed) : new Float32Array(packed);
      const first = from / columns;
      const rows = part.length / columns;
      for (let r = 0; r < rows; r += BLOCK) {
        const endRow = Math.min(rows, r + BLOCK);
        for (let c = 0; c < columns; c += BLOCK) {
          const width = Math.min(BLOCK, columns - c);
          for (let i = r; i < endRow; i++) {
            const end = i * columns + c + width;
            let to = c * pitch + first + i;
            for (let at = end - width; at < end; at++) {
              out[to] = part[at]!;
              to += pitch;
            }
          }
        }
      }
    },
  };
}

/** Packs a whole weight from its values in natural order. Values beyond the range of f16 become infinite. */
export function pack(packing: Packing, values: Float32Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const packed = new ArrayBuffer(packing.bytes);
  if (packing.dtype === 'f32') packing.place(values, 0, packed);
  else {
    const halves = new Uint16Array(values.length);
    f32ToF16(values, halves);
    packing.place(halves, 0, packed);
  }
  return new Uint8Array(packed);
}
