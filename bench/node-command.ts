// How to start another process of this Node.

import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';

/**
 * Returns the command that starts this Node again. If Node was started by a dynamic loader of its own, as for a Mesa that
 * is unpacked next to the system's, `process.execPath` is that loader, and the command is the loader with its arguments.
 */
export function nodeCommand(
  execPath = process.execPath,
  commandLine = existsSync('/proc/self/cmdline') ? readFileSync('/proc/self/cmdline', 'utf8') : '',
): readonly [string, ...string[]] {
  if (!/^ld[-.]/.test(basename(execPath))) return [execPath];
  const [loader = execPath, ...words] = commandLine.split('\0');
  const node = words.findIndex((word) => /^node(js)?$/.test(basename(word)));
  return node < 0 ? [execPath] : [loader, ...words.slice(0, node + 1)];
}
