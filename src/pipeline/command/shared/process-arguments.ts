// Reads the arguments of the process without loss.

import { readFileSync } from 'node:fs';
import { pathFromBytes } from '../../escaping.ts';

/**
 * Returns the arguments after the script. In Node's own list, bytes that are not UTF-8 are replaced, so that a file with
 * such a name could not be opened. On Linux, the original bytes are read from /proc.
 */
export function processArguments(): string[] {
  const texts = process.argv.slice(2);
  if (process.platform !== 'linux' || !texts.some((text) => text.includes('\ufffd'))) return texts;
  try {
    const bytes = readFileSync('/proc/self/cmdline');
    const all: string[] = [];
    for (let start = 0; start < bytes.length; ) {
      const end = bytes.indexOf(0, start);
      all.push(pathFromBytes(bytes.subarray(start, end < 0 ? bytes.length : end)));
      start = end < 0 ? bytes.length : end + 1;
    }
    return texts.length <= all.length ? all.slice(all.length - texts.length) : texts;
  } catch {
    return texts; // without /proc such names are lost
  }
}
