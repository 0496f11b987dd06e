// Reads files from disk: image files at once, and files that hold many images as streams.

import { createReadStream } from 'node:fs';
import { constants, open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { fault, itemErrorOf, systemCode } from '../images/failures.ts';
import { systemPath } from './system-path.ts';

/** Reads a regular file. A pipe is refused without waiting for its other end. */
export async function readWhole(path: string, maxBytes: number): Promise<Buffer> {
  const file = await open(systemPath(path), constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const info = await file.stat();
    if (!info.isFile()) throw fault('not-a-file', 'not a regular file');
    if (info.size === 0) throw fault('empty', 'the file has 0 bytes');
    if (info.size > maxBytes) throw fault('too-large', `${info.size} bytes; at most ${maxBytes} are read`);
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/**
 * Streams the bytes of a file, decompressed if its name ends in .gz or .tgz. Throws `ItemError`: `truncated` or
 * `corrupt` for damaged gzip data, or the code of the system's error.
 */
export async function* inflatedFile(path: string): AsyncGenerator<Buffer> {
  const file = createReadStream(systemPath(path));
  const source: Readable = /\.t?gz$/i.test(path) ? file.pipe(createGunzip()) : file;
  if (source !== file) file.on('error', (error) => source.destroy(error));
  try {
    yield* source as AsyncIterable<Buffer>;
  } catch (error) {
    if (systemCode(error) !== undefined) throw itemErrorOf(error);
    const cut = error instanceof Error && 'code' in error && error.code === 'Z_BUF_ERROR';
    const why = error instanceof Error ? error.message : String(error);
    throw fault(cut ? 'truncated' : 'corrupt', `cannot be inflated (${why})`, error);
  } finally {
    source.destroy();
    file.destroy();
  }
}
