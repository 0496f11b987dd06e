// Bytes without the buffers of Node, so that decoding also runs in a browser.

/** Views memory as bytes, without copying. */
export const asBytes = (data: Uint8Array | ArrayBufferLike): Uint8Array =>
  data instanceof Uint8Array ? data : new Uint8Array(data);

/** Joins parts into one array of bytes. A single part is returned as it is. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Reads an unsigned integer of 4 bytes, the most significant byte first. */
export const uint32At = (bytes: Uint8Array, at: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at);

/** Returns a string with one character per byte. */
export const latin1 = (bytes: Uint8Array): string => String.fromCharCode(...bytes);
