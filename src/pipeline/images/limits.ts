// Limits on the reading of one image.

import type { AbortSignalLike } from '../../host-types.ts';

/** The largest number of pixels of an image, by its header: 64 Mi, as of 8,192 x 8,192. */
export const MAX_PIXELS = 64 * 2 ** 20;

/** The largest number of bytes of an encoded image: 256 MiB. */
export const MAX_BYTES = 256 * 2 ** 20;

/** Limits on the size of an image. */
export interface DecodeLimits {
  /** The largest number of pixels, by the header. Default: 64 Mi. */
  readonly maxPixels?: number | undefined;
  /** The largest number of bytes of the file, stream or download. Default: 256 MiB. */
  readonly maxBytes?: number | undefined;
}

/** Limits on the size of an image, and a signal that stops reading it. */
export interface ReadLimits extends DecodeLimits {
  /** Stops reading and downloading; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignalLike | undefined;
}
