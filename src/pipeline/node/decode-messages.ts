// The messages between the thread that classifies and the threads that decode.

import type { Model } from '../../graph/model.ts';
import type { ImageSummary } from '../images/conversions.ts';
import type { EncodedImage } from '../images/image-input.ts';
import type { DecodeLimits } from '../images/limits.ts';
import type { PrepareOptions } from '../images/prepare.ts';
import type { ImageItem, ItemFailure } from '../types.ts';

/** An image to load: a path, or the bytes of an image file. */
export interface DecodeRequest {
  readonly image: string | EncodedImage;
  readonly shape: Model['inputShape'];
  readonly options: DecodeLimits & PrepareOptions;
}

/**
 * The image, fitted to the model, or its failure. `undefined`: an error that does not concern the image alone; the thread
 * that asked repeats the work, so that the error is thrown there.
 */
export type DecodeReply =
  | { readonly item: ImageItem; readonly summary: ImageSummary | undefined }
  | { readonly failure: ItemFailure }
  | undefined;

/** What a thread says when it can decode. */
export const READY = 'ready';
