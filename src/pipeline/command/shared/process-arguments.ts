// The arguments of the process, byte by byte.

import { readFileSync } from 'node:fs';
import { pathFromBytes } from '../../escaping.ts';

/**
 * The arguments after the script. Node replaces bytes that are not UTF-8, so that a file of such a name cannot be
 * opened; on Linux the system still has them.
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
    return texts; // no /proc: those names cannot be had
  }
}
