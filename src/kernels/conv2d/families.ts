// How convolution kernels differ between the kernel families.

import type { Family } from '../device/families.ts';

/** Which method a family uses for a convolution, and how it divides the work. */
interface ConvolutionVariant {
  /** The fused Winograd kernel is used for at most this many output channels. */
  readonly fusedUpTo: number;
  /** If no transform fits, gathered taps are multiplied for more output channels than this. */
  readonly tapsAbove: number;
  /** Otherwise weights are broadcast for more output channels than this; the direct kernel does the rest. */
  readonly broadcastAbove: number;
  /** Whether Winograd may use tiles of 7x7. On GPUs they have not been measured. */
  readonly tilesOf7: boolean;
  /**
   * Channels per invocation of a transform. Several share the work of finding their pixels; a GPU needs more
   * invocations instead.
   */
  readonly channelsEach: number;
  /**
   * Bytes that one operand of the products between two transforms may take in a pass. On a processor the
   * three steps of a pass then meet in its caches (32->32 enlarged from 14x14, n = 64: 12.3 ms, and 15.6 ms
   * in one pass); a GPU is faster with few large launches.
   */
  readonly passBytes: number;
}

const NEVER = Number.POSITIVE_INFINITY;

const GPU: ConvolutionVariant = {
  fusedUpTo: 0,
  tapsAbove: NEVER,
  broadcastAbove: NEVER,
  tilesOf7: false,
  channelsEach: 1,
  passBytes: 2 ** 27,
};

export const CONVOLUTIONS: Readonly<Record<Family, ConvolutionVariant>> = {
  subgroup: {
    fusedUpTo: 16,
    tapsAbove: 16,
    broadcastAbove: 4,
    tilesOf7: true,
    channelsEach: 8,
    passBytes: 2 ** 22,
  },
  plain: {
    fusedUpTo: 0,
    tapsAbove: NEVER,
    broadcastAbove: NEVER,
    tilesOf7: true,
    channelsEach: 8,
    passBytes: 2 ** 27,
  },
  tile: GPU,
  matrix: GPU,
};
