// The bytes of an image file from wherever they come: memory, Blobs, streams and URLs, never more than a limit.

import { until } from '../stream/iterables.ts';
import { fault } from './failures.ts';
import type { BlobLike, UrlLike, WebStreamLike } from './image-input.ts';
import { MAX_BYTES, type ReadLimits } from './limits.ts';

const tooLarge = (maxBytes: number) =>
  fault('too-large', `more than the ${maxBytes} bytes that are read at most`);

/** Views memory as a Buffer, without copying. */
export const asBuffer = (bytes: Uint8Array | ArrayBufferLike): Buffer =>
  bytes instanceof Uint8Array
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : Buffer.from(bytes);

/** Reads a stream of bytes to its end. A stream that fails is the item's fault: `unreadable`. */
export async function bytesOfStream(
  source: AsyncIterable<unknown>,
  limits: ReadLimits = {},
): Promise<Buffer> {
  const { maxBytes = MAX_BYTES, signal } = limits;
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of signal ? until(source, signal) : source) {
      if (!(part instanceof Uint8Array))
        throw fault('not-an-image', `expected a stream of bytes (Uint8Array), got ${typeof part}`);
      size += part.length;
      if (size > maxBytes) throw tooLarge(maxBytes);
      parts.push(part);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof Error && error.name === 'ItemError') throw error;
    throw fault('unreadable', `the stream failed: ${error instanceof Error ? error.message : error}`, error);
  }
  signal?.throwIfAborted();
  return Buffer.concat(parts);
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
