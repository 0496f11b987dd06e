// Reads integers of a file whose bytes may end within them.

import { fault } from './failures.ts';

/** Reads integers at offsets of a file, the least significant byte first unless `bigEndian`. */
export interface FileView {
  readonly u8: (at: number) => number;
  readonly u16: (at: number) => number;
  readonly u32: (at: number) => number;
  readonly i32: (at: number) => number;
}

/** Views a file. Every read throws `ItemError` `truncated` if the file ends before; `format` is named in the message. */
export function fileView(bytes: Uint8Array, format: string, bigEndian = false): FileView {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = (offset: number, size: number): number => {
    if (offset < 0 || offset + size > bytes.length)
      throw fault('truncated', `${format}: ends after ${bytes.length} bytes, expected ${offset + size}`);
    return offset;
  };
  return {
    u8: (offset) => view.getUint8(at(offset, 1)),
    u16: (offset) => view.getUint16(at(offset, 2), !bigEndian),
    u32: (offset) => view.getUint32(at(offset, 4), !bigEndian),
    i32: (offset) => view.getInt32(at(offset, 4), !bigEndian),
  };
}
