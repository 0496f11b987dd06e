// How convolution kernels differ between the kernel families.

import type { Family } from '../device/families.ts';

/** Which method a family uses for a convolution, and how it divides the work. */
interface ConvolutionVariant {
  /** The fused Winograd kernel is used for at most this many output channels. */
  readonly fusedUpTo: number;
  /** If no transform fits, gathered taps are multiplied for more output channels than this. */
  readonly tapsAbove: number;
  /** Compact weights are transformed for images of at least this many tiles. */
  readonly transformTiles: number;
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

/**
 * Two of these numbers are estimates that no GPU has confirmed yet.
 * - `tapsAbove`: on an H200 the direct kernel reached 12 TFLOP/s with stride 2 and the GEMM 33.8. For 320 channels to 32x32,
 *   n = 16, gathering writes and reads 189 MB (0.1 ms at 4 TB/s), and the product has 30 GFLOP (0.9 ms).
 * - `transformTiles`: 1280 channels at 8x8 reached 9.4 TFLOP/s by gathered taps (n = 16: 3.2 ms). Tiles are numbered over the
 *   batch, so that Winograd's products have 64 columns there and take a quarter of the operations; transforming the weights
 *   in each run writes and reads 236 MB (0.1 ms). With n = 1 they have 4 columns, but the taps' product then has 20
 *   workgroups, fewer than the GPU has cores.
 */
const GPU: ConvolutionVariant = {
  fusedUpTo: 0,
  tapsAbove: 16,
  transformTiles: 4,
  broadcastAbove: NEVER,
  tilesOf7: false,
  channelsEach: 1,
  passBytes: 2 ** 27,
};

export const CONVOLUTIONS: Readonly<Record<Family, ConvolutionVariant>> = {
  subgroup: {
    fusedUpTo: 16,
    tapsAbove: 16,
    transformTiles: 16,
    broadcastAbove: 4,
    tilesOf7: true,
    channelsEach: 8,
    passBytes: 2 ** 22,
  },
  plain: {
    fusedUpTo: 0,
    tapsAbove: NEVER,
    transformTiles: 16,
    broadcastAbove: NEVER,
    tilesOf7: true,
    channelsEach: 8,
    passBytes: 2 ** 27,
  },
  tile: GPU,
  matrix: GPU,
};
