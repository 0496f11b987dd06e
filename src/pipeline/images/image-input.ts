// The types from which an image can be read. They are structural: they match Blob, ImageData, URL, web streams and sharp
// without naming them, so that they compile without lib DOM and without sharp.

import type { ImageGeometry } from '../../graph/model.ts';
import type { ImageItem } from '../types.ts';
import type { Pixels } from './pixels.ts';

/** A decoded image that is not fitted to a model yet. `path` is its name in results, '' if it has none. */
export interface DecodedImage extends Pixels {
  readonly path: string;
}

/** Pixels in memory, rows from top to bottom, channels interleaved, as from a canvas, a camera or a tensor. */
export interface RawImage {
  /**
   * [height, width, channels]. Bytes are in [0, 255]. Of 16-bit values the high byte is kept, as for 16-bit files. Floats
   * need `range`, and are rounded to 8 bits as in a file.
   */
  readonly data: Uint8Array | Uint8ClampedArray | Uint16Array | Float32Array | Float64Array;
  readonly width: number;
  readonly height: number;
  /** 1: grey, 2: grey and alpha, 3: RGB, 4 (default, as in ImageData): RGBA. Alpha is dropped, as for files. */
  readonly channels?: number | undefined;
  /** The float values of black and white, such as [0, 1], [-1, 1] or [0, 255]. */
  readonly range?: readonly [black: number, white: number] | undefined;
  /** Name of the image in results. */
  readonly path?: string | undefined;
}

/** The bytes of an image file, with a name for results. */
export interface EncodedImage {
  readonly path: string;
  readonly data: Uint8Array | ArrayBufferLike;
}

/** Pixels [c, h, w] in [-1, 1] that already fit a model: an `ImageItem` whose path may be missing. */
export interface ReadyImage {
  readonly pixels: Float32Array;
  readonly path?: string | undefined;
  /** Where the pixels were in a larger image, for Stable Diffusion XL. Default: they are a whole image. */
  readonly geometry?: ImageGeometry | undefined;
}

/** A Blob, or a File, whose name becomes the path. */
export interface BlobLike {
  readonly arrayBuffer: () => Promise<ArrayBuffer>;
  readonly size: number;
  readonly name?: string;
}

/** A URL object: file:, data:, http: or https:. Strings are paths; they are never fetched. */
export interface UrlLike {
  readonly href: string;
  readonly protocol: string;
}

/** A web ReadableStream of bytes. */
export interface WebStreamLike {
  readonly getReader: () => {
    readonly read: () => Promise<{ readonly done: boolean; readonly value?: unknown }>;
    readonly cancel: (reason?: unknown) => Promise<unknown>;
  };
}

/**
 * An instance of sharp, which may have operations. Its result is turned upright. Unlike for files, sharp applies an
 * embedded colour profile.
 */
export interface SharpLike {
  readonly clone: () => SharpLike;
  readonly metadata: () => Promise<{ readonly format?: unknown }>;
  readonly removeAlpha: () => SharpLike;
}

/** Everything that an image can be decoded from. */
export type ImageSource =
  | string
  | Uint8Array
  | ArrayBufferLike
  | EncodedImage
  | RawImage
  | BlobLike
  | UrlLike
  | WebStreamLike
  | AsyncIterable<Uint8Array>
  | SharpLike;

/** Everything that can be classified: what an image can be decoded from, or pixels that already fit the model. */
export type ImageInput = ImageSource | ReadyImage | ImageItem;
