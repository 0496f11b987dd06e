// The encodings that lists and tables come in: UTF-8, UTF-16 with a byte order mark, and Windows-1252.

import { decodedUtf8 } from '../escaping.ts';
import { concatBytes } from './bytes.ts';

/** Returns the encoding that a byte order mark announces (without one, UTF-8), and the length of the mark in bytes. */
function announced(bytes: Uint8Array): {
  readonly encoding: 'utf-8' | 'utf-16le' | 'utf-16be';
  readonly mark: number;
} {
  const [a, b, c] = bytes;
  if (a === 0xff && b === 0xfe) return { encoding: 'utf-16le', mark: 2 };
  if (a === 0xfe && b === 0xff) return { encoding: 'utf-16be', mark: 2 };
  return { encoding: 'utf-8', mark: a === 0xef && b === 0xbb && c === 0xbf ? 3 : 0 };
}

/**
 * The characters of Windows-1252 from 0x80 to 0x9F, where Latin-1 has control characters; five codes are not assigned.
 * They are written out because `TextDecoder('windows-1252')` of Node 20 decodes them as Latin-1.
 */
const WINDOWS_1252 = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ';

const fromWindows1252 = (bytes: Uint8Array): string =>
  new TextDecoder('windows-1252')
    .decode(bytes)
    .replace(/[\x80-\x9f]/g, (character) => WINDOWS_1252[character.charCodeAt(0) - 0x80]!);

/**
 * Decodes the text of a table: UTF-16 if a byte order mark says so, UTF-8, or else Windows-1252 (which includes
 * Latin-1), as spreadsheets write it in western Europe. Drops a byte order mark.
 */
export function textOf(bytes: Uint8Array): string {
  const { encoding, mark } = announced(bytes);
  const body = bytes.subarray(mark);
  if (encoding === 'utf-8') return decodedUtf8(body) ?? fromWindows1252(body);
  return new TextDecoder(encoding, { ignoreBOM: true }).decode(body);
}

/** Whether bytes could be the beginning of a byte order mark of which more is to come. */
const isPartOfMark = ([a, b, c]: Uint8Array): boolean =>
  (b === undefined && (a === 0xff || a === 0xfe || a === 0xef)) ||
  (a === 0xef && b === 0xbb && c === undefined);

/** Removes the byte order mark from a stream of bytes, and converts UTF-16 to UTF-8. */
export async function* withoutMark(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let head: Uint8Array | undefined = new Uint8Array();
  let decoder: InstanceType<typeof TextDecoder> | undefined;
  const decoded = (bytes: Uint8Array) =>
    decoder ? new TextEncoder().encode(decoder.decode(bytes, { stream: true })) : bytes;
  for await (const chunk of source) {
    if (!head) {
      yield decoded(chunk);
      continue;
    }
    head = concatBytes([head, chunk]);
    if (head.length === 0 || isPartOfMark(head)) continue;
    const { encoding, mark } = announced(head);
    if (encoding !== 'utf-8') decoder = new TextDecoder(encoding, { ignoreBOM: true });
    yield decoded(head.subarray(mark));
    head = undefined;
  }
  if (head && head.length > 0) yield head;
}
