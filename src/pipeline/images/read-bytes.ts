// The bytes of an image file from wherever they come: memory, Blobs, streams and URLs, never more than a limit; and the
// bytes of files that hold many images, as streams.

import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';

import { ItemError } from '../../errors.ts';
import { systemPath } from '../escaping.ts';
import { until } from '../stream/iterables.ts';
import { fault, itemErrorOf, systemCode } from './failures.ts';
import type { BlobLike, UrlLike, WebStreamLike } from './image-input.ts';
import { MAX_BYTES, type ReadLimits } from './limits.ts';

const tooLarge = (maxBytes: number) =>
  fault('too-large', `more than the ${maxBytes} bytes that are read at most`);

/** Views memory as a Buffer, without copying. */
export const asBuffer = (bytes: Uint8Array | ArrayBufferLike): Buffer =>
  bytes instanceof Uint8Array
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : Buffer.from(bytes);

/** Reads a stream of bytes to its end; errors of the stream are thrown as they are. */
export async function collectBytes(source: AsyncIterable<unknown>, limits: ReadLimits = {}): Promise<Buffer> {
  const { maxBytes = MAX_BYTES, signal } = limits;
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of signal ? until(source, signal) : source) {
    if (!(part instanceof Uint8Array))
      throw fault('not-an-image', `expected a stream of bytes (Uint8Array), got ${typeof part}`);
    size += part.length;
    if (size > maxBytes) throw tooLarge(maxBytes);
    parts.push(part);
  }
  signal?.throwIfAborted();
  return Buffer.concat(parts);
}

/** As `collectBytes`, for a stream of the caller: one that fails is the item's fault, `unreadable`. */
export async function bytesOfStream(source: AsyncIterable<unknown>, limits: ReadLimits): Promise<Buffer> {
  try {
    return await collectBytes(source, limits);
  } catch (error) {
    limits.signal?.throwIfAborted();
    if (error instanceof ItemError) throw error;
    throw fault('unreadable', `the stream failed: ${error instanceof Error ? error.message : error}`, error);
  }
}

/** Iterates a web stream by its reader: not every browser makes streams iterable. Leaving early cancels it. */
export async function* partsOf(stream: WebStreamLike): AsyncGenerator<unknown> {
  const reader = stream.getReader();
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        ended = true;
        return;
      }
      yield value;
    }
  } finally {
    if (!ended) reader.cancel().catch(() => undefined);
  }
}

/** Reads a Blob; its size is checked first. */
export async function bytesOfBlob(
  blob: BlobLike,
  { maxBytes = MAX_BYTES, signal }: ReadLimits,
): Promise<Buffer> {
  if (blob.size > maxBytes) throw tooLarge(maxBytes);
  const bytes = Buffer.from(await blob.arrayBuffer());
  signal?.throwIfAborted();
  return bytes;
}

/** Fetches a data:, http: or https: URL. */
export async function bytesOfUrl({ href, protocol }: UrlLike, limits: ReadLimits): Promise<Buffer> {
  if (!['http:', 'https:', 'data:'].includes(protocol))
    throw fault('unreadable', `expected a file:, data:, http: or https: URL, got ${protocol}`);
  const { maxBytes = MAX_BYTES, signal } = limits;
  let response: Response;
  try {
    response = await fetch(href, { signal: signal ?? null });
  } catch (error) {
    signal?.throwIfAborted();
    const { cause } = error as { readonly cause?: unknown };
    const why = cause instanceof Error ? cause.message : error instanceof Error ? error.message : error;
    throw fault('unreadable', `cannot be fetched (${why})`, error);
  }
  if (!response.ok || !response.body) {
    await response.body?.cancel();
    const missing = response.status === 404 || response.status === 410;
    throw fault(missing ? 'not-found' : 'unreadable', `the server answered ${response.status}`);
  }
  if (Number(response.headers.get('content-length')) > maxBytes) {
    await response.body.cancel();
    throw tooLarge(maxBytes);
  }
  return bytesOfStream(partsOf(response.body), limits);
}

/**
 * Streams the bytes of a file, inflated if its name ends in .gz or .tgz.
 *
 * @throws ItemError `truncated` or `corrupt` for broken gzip data, or the code of the system's error.
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
