// What bounds the reading of one image, wherever it comes from.

import type { AbortSignalLike } from '../host-types.ts';

/** Pixels that an image may have, by its header: 64 Mi, an 8,192 x 8,192 image. */
export const MAX_PIXELS = 64 * 2 ** 20;

/** Bytes that an encoded image may have: 256 MiB. */
export const MAX_BYTES = 256 * 2 ** 20;

/** What is decoded at most. */
export interface DecodeLimits {
  /** Pixels by the header; `MAX_PIXELS` when absent. */
  readonly maxPixels?: number | undefined;
  /** Bytes of the file, stream or download; `MAX_BYTES` when absent. */
  readonly maxBytes?: number | undefined;
}

/** What is read at most, and how to stop it. */
export interface ReadLimits extends DecodeLimits {
  /** Stops reading and downloading; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignalLike | undefined;
}
