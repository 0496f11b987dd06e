// Lines of a stream of bytes, with a bound on how long one may be.

import { UsageError } from '../errors.ts';

/** Bytes that a path on standard input may have; more than any system allows. */
const LONGEST = 64 * 1024;

/**
 * The non-empty lines of a UTF-8 stream. A carriage return before a line feed belongs to the end of the line.
 *
 * @throws UsageError for a line that is longer than any path can be, rather than hold it in memory.
 */
export async function* linesOf(source: AsyncIterable<Uint8Array>, end: '\n' | '\0'): AsyncGenerator<string> {
  const mark = end.charCodeAt(0);
  let rest = Buffer.alloc(0);
  const text = (bytes: Buffer) => {
    const line = bytes.toString('utf8');
    return end === '\n' && line.endsWith('\r') ? line.slice(0, -1) : line;
  };
  for await (const chunk of source) {
    const bytes =
      rest.length > 0
        ? Buffer.concat([rest, chunk])
        : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let start = 0;
    for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, start)) {
      const line = text(bytes.subarray(start, at));
      start = at + 1;
      if (line !== '') yield line;
    }
    rest = Buffer.from(bytes.subarray(start));
    if (rest.length > LONGEST) throw new UsageError(`standard input: a path of more than ${LONGEST} bytes`);
  }
  const last = text(rest);
  if (last !== '') yield last;
}
