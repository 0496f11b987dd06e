// zlib's decompression with the faults of images.

import { promisify } from 'node:util';
import { inflate, inflateSync } from 'node:zlib';
import { fault } from '../images/failures.ts';

/** The largest image, in bytes, that is inflated synchronously on this thread; larger ones use the thread pool. */
const SMALL = 256 * 1024;

/**
 * Decompresses zlib data that should give `size` bytes. Throws `ItemError` `truncated` if the data ends early, and
 * `corrupt` if it is damaged or gives more than `limit` bytes; `format` is named in messages.
 */
export async function inflated(
  format: string,
  data: Uint8Array,
  size: number,
  limit: number,
): Promise<Uint8Array> {
  const options = { maxOutputLength: limit };
  try {
    if (size <= SMALL) return inflateSync(data, options);
    return await promisify<Uint8Array, object, Buffer>(inflate)(data, options);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'Z_BUF_ERROR') throw fault('truncated', `${format}: the compressed data ends early`, error);
    if (code === 'ERR_BUFFER_TOO_LARGE') throw fault('corrupt', `${format}: more data than pixels`, error);
    const why = error instanceof Error ? error.message : 'cannot be inflated';
    throw fault('corrupt', `${format}: ${why}`, error);
  }
}
