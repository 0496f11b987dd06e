// Text that is safe to show: control characters, characters that reorder a line, and bytes that are not UTF-8 are
// written as `\x1B`, byte by byte. `unescaped` is the exact inverse.
//
// File names on Linux are bytes, and need not be UTF-8. Inside the program a path is a string in which each byte that
// is not UTF-8 stands as a lone surrogate, U+DC80 to U+DCFF, as in Python (PEP 383, `surrogateescape`). In JSON such a
// byte reads `\udce9`; Python's `os.fsencode(json.loads(line)['path'])` returns the bytes of the name.

import { isUtf8 } from 'node:buffer';

/** A byte that is not UTF-8; with the flag `u` only lone surrogates match. */
const STRAY_BYTE = /[\udc80-\udcff]/u;

/** Control characters, characters that reorder or break a line (Unicode's bidi controls), and lone surrogates. */
const UNSAFE = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

/** What reads like an escape already: its backslash is escaped too, so that `unescaped` is the exact inverse. */
const LOOKS_ESCAPED = /\\(?=x[0-9A-F]{2})/g;

const hex = (byte: number) => `\\x${byte.toString(16).toUpperCase().padStart(2, '0')}`;

/** The text of a path's bytes; see the head of this file. */
export function pathFromBytes(bytes: Uint8Array): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isUtf8(buffer)) return buffer.toString('utf8');
  let text = '';
  for (let at = 0; at < buffer.length; ) {
    const lead = buffer[at]!;
    const length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    const character = buffer.subarray(at, at + length);
    if (isUtf8(character)) {
      text += character.toString('utf8');
      at += length;
    } else {
      text += String.fromCharCode(0xdc00 + lead);
      at++;
    }
  }
  return text;
}

/** The bytes of a path. */
export function bytesOfPath(path: string): Buffer {
  if (!STRAY_BYTE.test(path)) return Buffer.from(path);
  return Buffer.concat(
    path
      .split(/([\udc80-\udcff])/u)
      .map((part) =>
        STRAY_BYTE.test(part) ? Buffer.from([part.charCodeAt(0) - 0xdc00]) : Buffer.from(part),
      ),
  );
}

/** A path as Node's file system takes it: the string itself, or its bytes if they are not UTF-8. */
export const systemPath = (path: string): string | Buffer =>
  STRAY_BYTE.test(path) ? bytesOfPath(path) : path;

/** Writes what is unsafe to show as `\x1B`, except the characters in `kept`. For messages, which nothing reads back. */
export const printable = (text: string, kept = ''): string =>
  text.replace(UNSAFE, (character) =>
    kept.includes(character) ? character : [...bytesOfPath(character)].map(hex).join(''),
  );

/** As `printable`, and `unescaped` finds the way back. */
export const escaped = (text: string, kept = ''): string =>
  printable(text.replace(LOOKS_ESCAPED, hex(0x5c)), kept);

/** The text that `escaped` was given. */
export const unescaped = (text: string): string =>
  pathFromBytes(
    Buffer.concat(
      text
        .split(/(\\x[0-9A-F]{2})/)
        .map((part) =>
          /^\\x[0-9A-F]{2}$/.test(part)
            ? Buffer.from([Number.parseInt(part.slice(2), 16)])
            : bytesOfPath(part),
        ),
    ),
  );

/** JSON in which what a terminal would obey is escaped too: DEL, C1 controls and bidi controls. The value is the same. */
export const safeJson = (value: unknown): string =>
  JSON.stringify(value).replace(
    UNSAFE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
