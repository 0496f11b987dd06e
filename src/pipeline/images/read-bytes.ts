// Reads the bytes of an image file from Blobs, streams and URLs, never more than a limit.

import { ItemError } from '../../errors.ts';
import { until } from '../stream/iterables.ts';
import { concatBytes } from './bytes.ts';
import { fault } from './failures.ts';
import type { BlobLike, UrlLike, WebStreamLike } from './image-input.ts';
import { MAX_BYTES, type ReadLimits } from './limits.ts';

const tooLarge = (maxBytes: number) =>
  fault('too-large', `more than ${maxBytes} bytes, the most that are read`);

/** Reads a stream of bytes to its end; errors of the stream are thrown as they are. */
export async function collectBytes(
  source: AsyncIterable<unknown>,
  limits: ReadLimits = {},
): Promise<Uint8Array> {
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
  return concatBytes(parts);
}

/** Reads a stream of the caller's to its end. Throws `ItemError` `unreadable` if the stream fails. */
export async function bytesOfStream(source: AsyncIterable<unknown>, limits: ReadLimits): Promise<Uint8Array> {
  try {
    return await collectBytes(source, limits);
  } catch (error) {
    limits.signal?.throwIfAborted();
    if (error instanceof ItemError) throw error;
    throw fault('unreadable', `the stream failed: ${error instanceof Error ? error.message : error}`, error);
  }
}

/** Iterates over a web stream with its reader, as streams are not iterable in every browser. Leaving early cancels it. */
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

/** Reads a Blob, unless its size is over the limit. */
export async function bytesOfBlob(
  blob: BlobLike,
  { maxBytes = MAX_BYTES, signal }: ReadLimits,
): Promise<Uint8Array> {
  if (blob.size > maxBytes) throw tooLarge(maxBytes);
  const bytes = new Uint8Array(await blob.arrayBuffer());
  signal?.throwIfAborted();
  return bytes;
}

/** Fetches a data:, http: or https: URL. */
export async function bytesOfUrl({ href, protocol }: UrlLike, limits: ReadLimits): Promise<Uint8Array> {
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
