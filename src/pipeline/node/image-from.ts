// Reads images from anywhere. All of them go through the decoder and the resampler that files go through, so that the
// same image gives the same pixels whichever way it comes.

import { fileURLToPath } from 'node:url';
import type { Sharp } from 'sharp';
import type { Model } from '../../graph/model.ts';
import { asBytes } from '../images/bytes.ts';
import { fault, itemErrorOf } from '../images/failures.ts';
import type {
  BlobLike,
  DecodedImage,
  EncodedImage,
  ImageInput,
  ImageSource,
  RawImage,
  ReadyImage,
  SharpLike,
  UrlLike,
  WebStreamLike,
} from '../images/image-input.ts';
import { MAX_PIXELS, type ReadLimits } from '../images/limits.ts';
import type { Pixels } from '../images/pixels.ts';
import { geometryOf, type PrepareOptions, prepareImage } from '../images/prepare.ts';
import { checkPixels, rawPixels } from '../images/raw-pixels.ts';
import { bytesOfBlob, bytesOfStream, bytesOfUrl, partsOf } from '../images/read-bytes.ts';
import type { ImageItem } from '../types.ts';
import { decodeFile, decodeImage } from './decode.ts';
import { pixelsOfSharp } from './sharp.ts';

/** How an image is read. */
export interface ImageFromOptions extends ReadLimits {
  /** Name of the image in results. Default: its path, the name of a File, or the URL; '' if it has none. */
  readonly name?: string | undefined;
}

const isUrl = (source: object): source is UrlLike =>
  'href' in source && 'protocol' in source && typeof source.href === 'string';
const isRaw = (source: object): source is RawImage => 'data' in source && 'width' in source;
const isEncoded = (source: object): source is EncodedImage => 'data' in source && 'path' in source;
const isReady = (source: unknown): source is ReadyImage =>
  typeof source === 'object' && source !== null && 'pixels' in source;
const isBytes = (source: unknown): source is Uint8Array | ArrayBufferLike =>
  source instanceof Uint8Array ||
  source instanceof ArrayBuffer ||
  (typeof SharedArrayBuffer === 'function' && source instanceof SharedArrayBuffer);
const isSharp = (source: object): source is SharpLike =>
  'removeAlpha' in source && 'metadata' in source && 'clone' in source;
const isWebStream = (source: object): source is WebStreamLike =>
  'getReader' in source && typeof source.getReader === 'function';
const isIterable = (source: object): source is AsyncIterable<unknown> => Symbol.asyncIterator in source;
const isBlob = (source: object): source is BlobLike =>
  'arrayBuffer' in source && typeof source.arrayBuffer === 'function';

/** Returns the path of a file: URL. Throws `ItemError` if it names another host, or no file. */
function pathOfUrl({ href }: UrlLike): string {
  try {
    return fileURLToPath(href);
  } catch (error) {
    throw fault('not-found', `${href} names no file of this system`, error);
  }
}

/** Reads a file. If a string that looks like a URL is not found, the message says that strings are never fetched. */
async function decodePath(path: string, options: ImageFromOptions): Promise<Pixels> {
  try {
    return await decodeFile(path, options);
  } catch (error) {
    const { code, message } = itemErrorOf(error);
    if (code === 'not-found' && /^(https?|file|data):/i.test(path))
      throw fault(code, `${message}; strings are paths of files; to fetch a URL, pass new URL(...)`, error);
    throw error;
  }
}

/** Returns the name of an input in results; '' if it has none. */
export function nameOf(source: ImageInput): string {
  if (typeof source === 'string') return source;
  if (isBytes(source)) return '';
  if (isUrl(source)) {
    if (source.protocol === 'data:') return '';
    if (source.protocol !== 'file:') return source.href;
    try {
      return pathOfUrl(source);
    } catch {
      return source.href;
    }
  }
  if ('path' in source && typeof source.path === 'string') return source.path;
  return 'name' in source && typeof source.name === 'string' ? source.name : '';
}

/** Decodes an image from whatever holds it. Throws `ItemError`. */
async function decoded(source: ImageSource, options: ImageFromOptions): Promise<Pixels> {
  const { maxPixels = MAX_PIXELS } = options;
  const decodeBytes = (bytes: Uint8Array | ArrayBufferLike) => decodeImage(asBytes(bytes), options);
  if (typeof source === 'string') return decodePath(source, options);
  if (isBytes(source)) return decodeBytes(source);
  if (typeof source === 'object' && source !== null) {
    // The order matters: a sharp instance is a Node stream too, and Node's web streams are iterable.
    if (isUrl(source))
      return source.protocol === 'file:'
        ? decodeFile(pathOfUrl(source), options)
        : decodeBytes(await bytesOfUrl(source, options));
    if (isRaw(source)) return rawPixels(source, maxPixels);
    if (isEncoded(source)) return decodeBytes(source.data);
    if (isSharp(source)) return pixelsOfSharp(source.clone() as Sharp, 'sharp', maxPixels);
    if (isWebStream(source)) return decodeBytes(await bytesOfStream(partsOf(source), options));
    if (isIterable(source)) return decodeBytes(await bytesOfStream(source, options));
    if (isBlob(source)) return decodeBytes(await bytesOfBlob(source, options));
  }
  const kind = Object.prototype.toString.call(source).slice(8, -1);
  throw fault(
    'not-an-image',
    `expected a path, bytes of an image file, { data, width, height }, { pixels }, a Blob, a URL, a stream or a sharp instance, got ${kind}`,
  );
}

/**
 * Decodes an image from whatever holds it, exactly as the same image in a file: transparency dropped, EXIF orientation
 * applied, 8 bits, grey or RGB. The result can be passed to `classify` of any classifier, any number of times. Pixels
 * that already fit a model (`{ pixels }`) are returned as they are, with a path.
 *
 * @param source an image. Strings are paths of files. URL objects are fetched from wherever they point to, so do not
 *   make them from untrusted input. Floats in `{ data, width, height, channels }` need their `range`.
 * @param options its name in results, limits of bytes and pixels, and a signal.
 * @return the decoded image: `data` [height, width, channels] of bytes, 1 or 3 channels, and its `path`.
 * @throws ItemError with a code of `FAILURE_CODES`; the signal's reason if `signal` aborts.
 *
 * @example
 * import { imageFrom } from 'diffclass-stream';
 * const data = new Float32Array(28 * 28).fill(0.5);
 * const image = await imageFrom({ data, width: 28, height: 28, channels: 1, range: [0, 1] });
 */
export function imageFrom(source: ReadyImage, options?: ImageFromOptions): Promise<ImageItem>;
export function imageFrom(source: ImageSource, options?: ImageFromOptions): Promise<DecodedImage>;
export function imageFrom(source: ImageInput, options?: ImageFromOptions): Promise<DecodedImage | ImageItem>;
export async function imageFrom(
  source: ImageInput,
  options: ImageFromOptions = {},
): Promise<DecodedImage | ImageItem> {
  options.signal?.throwIfAborted();
  try {
    if (isReady(source)) {
      const { pixels, geometry } = source;
      return { path: options.name ?? nameOf(source), pixels, ...(geometry && { geometry }) };
    }
    const image = await decoded(source, options);
    return { ...image, path: options.name ?? nameOf(source) };
  } catch (error) {
    options.signal?.throwIfAborted();
    throw itemErrorOf(error);
  }
}

/** How an image is read and fitted to a model. */
export interface ItemOptions extends ImageFromOptions, PrepareOptions {
  /** Called with every decoded image before it is fitted to the model's shape. */
  readonly onDecoded?: ((image: DecodedImage) => void) | undefined;
}

/**
 * Reads an image from anywhere and fits it to a model's input shape [c, h, w] (see `prepareImage`). Pixels that already
 * fit are checked by `checkPixels`. Throws `ItemError` for bad data, and `UsageError` if no image can have the shape.
 */
export async function itemFrom(
  source: ImageInput,
  shape: Model['inputShape'],
  options: ItemOptions = {},
): Promise<ImageItem> {
  const image = await imageFrom(source, options);
  if ('pixels' in image) {
    checkPixels(image.pixels, shape);
    return image;
  }
  options.onDecoded?.(image);
  return {
    path: image.path,
    pixels: prepareImage(image, shape, options),
    geometry: geometryOf(image, shape),
  };
}
