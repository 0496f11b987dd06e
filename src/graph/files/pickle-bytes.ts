// Reads the numbers and texts of a pickle from its bytes, one after the other.

import { ModelError } from '../../errors.ts';

/** The error for a pickle that goes on after the last byte that was given. */
export class PickleCutShort extends ModelError {}

/** The most bytes of a line of text. */
const LONGEST = 1 << 20;

/** Returns the beginning of a text from a file for a message, which stays one line. */
export const printable = (text: string, length: number): string =>
  text.slice(0, length).replace(/\p{Cc}/gu, '?');

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** Returns bytes as characters of the same codes, in parts that fit on the stack (TextDecoder's latin1 is windows-1252). */
function latin1(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192)
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return text;
}

/**
 * Returns a reader of `bytes` from `start` on. Numbers are little-endian, apart from `f64`. Every read throws
 * `ModelError`, beginning with `file` and naming the position, if the pickle is cut short or malformed.
 */
export function pickleBytes(bytes: Uint8Array, file: string, start: number) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = start;
  const left = () => bytes.length - at;
  const place = (what: string) => `${file}: ${what} (byte ${at} of the pickle)`;
  const refuse = (what: string): ModelError => new ModelError(place(what));
  const cutShort = (): PickleCutShort => new PickleCutShort(place('the pickle is cut short'));
  const take = (count: number): number => {
    if (!(count >= 0 && count <= left())) throw cutShort();
    at += count;
    return at - count;
  };
  const raw = (count: number) => {
    const from = take(count);
    return bytes.subarray(from, from + count);
  };
  const u8 = () => view.getUint8(take(1));
  const line = () => {
    const from = at;
    while (u8() !== 10) if (at - from > LONGEST) throw refuse('a line has no end');
    return utf8.decode(bytes.subarray(from, at - 1));
  };
  return {
    /** Returns the position of the next byte. */
    at: () => at,
    /** Returns how many bytes are left. */
    left,
    /** Returns the error of the current position. */
    refuse,
    cutShort,
    raw,
    u8,
    u16: () => view.getUint16(take(2), true),
    i32: () => view.getInt32(take(4), true),
    u32: () => view.getUint32(take(4), true),
    /** Reads a length, which is at most that of all bytes. */
    u64() {
      const value = view.getBigUint64(take(8), true);
      if (value > BigInt(bytes.length)) throw cutShort();
      return Number(value);
    },
    f64: () => view.getFloat64(take(8)),
    /** Reads an integer in two's complement; returns a number if it is exact as one, else a bigint. */
    long(count: number): number | bigint {
      if (count > 256) throw refuse(`expected an integer of at most 256 bytes, got one of ${count}`);
      let value = 0n;
      for (const byte of [...raw(count)].reverse()) value = value * 256n + BigInt(byte);
      if (count > 0 && bytes[at - 1]! >= 128) value -= 1n << BigInt(8 * count);
      return Number.isSafeInteger(Number(value)) ? Number(value) : value;
    },
    utf8: (count: number) => utf8.decode(raw(count)),
    latin1: (count: number) => latin1(raw(count)),
    /** Reads a line, without its line feed. */
    line,
    /** Parses a number. */
    number(text: string): number {
      const value = Number(text);
      if (text.trim() === '' || Number.isNaN(value)) throw refuse(`"${printable(text, 40)}" is not a number`);
      return value;
    },
    /** Reads a line of text in quotes that has no escapes. */
    quoted(): string {
      const text = line();
      const quote = text[0];
      if (
        !(quote === "'" || quote === '"') ||
        text.length < 2 ||
        !text.endsWith(quote) ||
        text.includes('\\')
      )
        throw refuse('expected a text of protocol 0 in quotes and without escapes');
      return text.slice(1, -1);
    },
  };
}
