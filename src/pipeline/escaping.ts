// Text that is safe to show: control characters, characters that reorder a line, and bytes that are not UTF-8 are
// written as `\x1B`, byte by byte. `unescaped` is the exact inverse.
//
// File names on Linux are bytes and need not be UTF-8. Inside the program a path is a string in which each byte that
// is not UTF-8 is a lone surrogate, U+DC80 to U+DCFF, as in Python (PEP 383, `surrogateescape`). In JSON such a
// byte reads `\udce9`; Python's `os.fsencode(json.loads(line)['path'])` returns the bytes of the name.

/** Matches a byte that is not UTF-8; with the flag `u` only lone surrogates match. */
const STRAY_BYTE = /[\udc80-\udcff]/u;

/** Matches control characters, characters that reorder or break a line (Unicode's bidi controls), and lone surrogates. */
const UNSAFE = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

/** Matches the backslash of text that already looks like an escape: it is escaped too, or `unescaped` would read it. */
const LOOKS_ESCAPED = /\\(?=x[0-9A-F]{2})/g;

const hex = (byte: number) => `\\x${byte.toString(16).toUpperCase().padStart(2, '0')}`;

/** Decodes UTF-8. Returns undefined if the bytes are not UTF-8. */
export function decodedUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Returns the path with these bytes, in which bytes that are not UTF-8 are lone surrogates (see above). */
export function pathFromBytes(bytes: Uint8Array): string {
  const whole = decodedUtf8(bytes);
  if (whole !== undefined) return whole;
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const lead = bytes[at]!;
    const length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    const character = decodedUtf8(bytes.subarray(at, at + length));
    text += character ?? String.fromCharCode(0xdc00 + lead);
    at += character === undefined ? 1 : length;
  }
  return text;
}

/** Whether a path has bytes that are not UTF-8. */
export const hasStrayBytes = (path: string): boolean => STRAY_BYTE.test(path);

/** Returns the bytes of a path. */
export function bytesOfPath(path: string): Uint8Array {
  if (!hasStrayBytes(path)) return new TextEncoder().encode(path);
  return Uint8Array.from(
    path
      .split(/([\udc80-\udcff])/u)
      .flatMap((part) =>
        hasStrayBytes(part) ? [part.charCodeAt(0) - 0xdc00] : [...new TextEncoder().encode(part)],
      ),
  );
}

/** Writes what is unsafe to show as `\x1B`, except the characters in `kept`. For messages, which nothing reads back. */
export const printable = (text: string, kept = ''): string =>
  text.replace(UNSAFE, (character) =>
    kept.includes(character) ? character : [...bytesOfPath(character)].map(hex).join(''),
  );

/** Escapes as `printable` does, but so that `unescaped` restores the text exactly. */
export const escaped = (text: string, kept = ''): string =>
  printable(text.replace(LOOKS_ESCAPED, hex(0x5c)), kept);

/** Returns the text from which `escaped` made this one. */
export const unescaped = (text: string): string =>
  pathFromBytes(
    Uint8Array.from(
      text
        .split(/(\\x[0-9A-F]{2})/)
        .flatMap((part) =>
          /^\\x[0-9A-F]{2}$/.test(part) ? [Number.parseInt(part.slice(2), 16)] : [...bytesOfPath(part)],
        ),
    ),
  );

/**
 * Returns JSON of the same value in which characters that a terminal would obey are escaped too: DEL, C1 controls and
 * bidi controls.
 */
export const safeJson = (value: unknown): string =>
  JSON.stringify(value).replace(
    UNSAFE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
