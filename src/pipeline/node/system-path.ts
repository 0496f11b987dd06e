// Paths as Node's file system takes them.

import { bytesOfPath, hasStrayBytes } from '../escaping.ts';

/** Returns what to give to `node:fs` for a path: the string itself, or its bytes if they are not UTF-8. */
export const systemPath = (path: string): string | Buffer =>
  hasStrayBytes(path) ? Buffer.from(bytesOfPath(path)) : path;
