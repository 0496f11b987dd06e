// Reads the lines of standard input, one path per line, with a bound on how much of a line is held.

import { UsageError } from '../../errors.ts';
import { pathFromBytes } from '../escaping.ts';
import { concatBytes } from './bytes.ts';
import { systemCode } from './failures.ts';
import { withoutMark } from './text-encoding.ts';

/** Bytes of a line that are kept: more than a path can have on any system. */
const LONGEST = 64 * 1024;

/**
 * Yields the non-empty lines of a stream of bytes. Keeps bytes that are not UTF-8 (see `escaping.ts`), drops a byte order
 * mark at the beginning, and reads UTF-16 with one too. A carriage return before a line feed belongs to the end of the
 * line. Of a longer line the first 64 KiB are kept, so that memory is bounded and the line still counts as one. Throws
 * `UsageError` if the stream cannot be read.
 */
export async function* linesOf(source: AsyncIterable<Uint8Array>, end: '\n' | '\0'): AsyncGenerator<string> {
  const mark = end.charCodeAt(0);
  let rest: Uint8Array = new Uint8Array();
  const text = (bytes: Uint8Array) => {
    const line = pathFromBytes(bytes.subarray(0, LONGEST));
    return end === '\n' && line.endsWith('\r') ? line.slice(0, -1) : line;
  };
  for await (const chunk of withoutMark(readable(source))) {
    const bytes = concatBytes([rest, chunk]);
    let start = 0;
    for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, start)) {
      const line = text(bytes.subarray(start, at));
      start = at + 1;
      if (line !== '') yield line;
    }
    // Keep one byte beyond the limit: otherwise a carriage return at the limit would be taken for the end of a line.
    rest = bytes.slice(start, start + LONGEST + 1);
  }
  const last = text(rest);
  if (last !== '') yield last;
}

async function* readable(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* source;
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined) throw error;
    throw new UsageError(`standard input cannot be read (${code})`);
  }
}
