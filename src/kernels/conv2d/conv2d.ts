// Convolution, with what usually surrounds it fused in: a group norm's affine map and activation in front;
// bias, embedding, residual and scale behind.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv } from '../device/kernel.ts';
import type { Routine } from '../device/routine.ts';
import { linear } from '../gemm/linear.ts';
import { broadcastConv2d } from './conv2d-broadcast.ts';
import { directPlain } from './conv2d-direct.ts';
import { factorBytes } from './conv2d-passes.ts';
import { type Conv2dOptions, type Geometry, geometryOf } from './conv2d-shape.ts';
import { tapsConv2d } from './conv2d-taps.ts';
import { upsample } from './conv2d-upsample.ts';
import { CONVOLUTIONS } from './families.ts';
import { mapsFor, winograd } from './winograd.ts';
import { winogradFused } from './winograd-fused.ts';

export { type Conv2dOptions, outputSize } from './conv2d-shape.ts';

/**
 * y = (weight * act(a x + b) + bias + embedding + residual) scale, where zeros pad the convolution's input after
 * its map and activation.
 *
 * Operands: x [c, n, h, w]; weight [oc, c, kh, kw], packed by the routine; bias [oc]; affine [2c, n, 1, 1], whose
 * rows 0..c-1 are a and c..2c-1 are b; embedding [oc, n, 1, 1]; residual and y [oc, n, oh, ow] with
 * `[oh, ow] = outputSize(options)`.
 *
 * The way depends on family, channels and geometry, never on n, and each way sums in an order of its own that does
 * not depend on n either: a sample has the same bytes in any batch.
 * @throws ShapeError where the options make no convolution.
 */
export function conv2d(capabilities: Capabilities, options: Conv2dOptions): Routine {
  const plain = geometryOf(options);
  const places = plain.enlarge === 2 ? 3 : mapsFor(capabilities, plain).size + 2; // in one dimension
  const compact = plain.compact || factorBytes(plain, places) > capabilities.maxBindingBytes;
  const geometry = { ...plain, compact };
  switch (wayOf(capabilities, geometry)) {
    case 'product':
      return linear(capabilities, options);
    case 'fused':
      return winogradFused(capabilities, geometry);
    case 'winograd':
      return winograd(capabilities, geometry);
    case 'upsample':
      return upsample(capabilities, geometry);
    case 'taps':
      return tapsConv2d(capabilities, geometry);
    case 'broadcast':
      return broadcastConv2d(capabilities, geometry);
    case 'direct':
      return directPlain(geometry);
  }
}

type Way = 'product' | 'fused' | 'winograd' | 'upsample' | 'taps' | 'broadcast' | 'direct';

/** Tiles of an image from which on it pays to transform compact weights for them. */
const TRANSFORM_TILES = 16;

/**
 * The fastest way by measurement on lavapipe (bench/kernels.ts, `conv2d`). In ms of processor time on 2 cores at n = 64:
 * 16->16 at 28x28: fused 4.7, winograd with tiles of 4 6.3; 1->16: 1.0, 2.5; 16->1: 2.5, 4.9; at n = 32, fused and
 * winograd with tiles of 7, 32->16: 4.7, 4.5; 80->16: 11.3, 8.4; 64->64 with stride 2 from 14x14: broadcast 5.1, taps 2.5.
 *
 * Compact weights, f16, in wall ms at n = 1 and 4: 320->320 at 64x64: winograd 51 (47 with its weights kept transformed),
 * taps 185, broadcast 359; 640->640 at 32x32: winograd 49, taps 141, broadcast 380; 1280->1280 at 16x16: winograd 168 and
 * 174, taps 143 and 582; at 8x8: winograd 167 and 167, taps 37 and 140.
 */
function wayOf(capabilities: Capabilities, geometry: Geometry): Way {
  const { fusedUpTo, tapsAbove, broadcastAbove } = CONVOLUTIONS[capabilities.family];
  const { x, y, kernel, stride, enlarge, top, left, compact, fused } = geometry;
  const same = stride === 1 && y[2] === x[2] * enlarge && y[3] === x[3] * enlarge;
  const few = x[0] < 8 || y[0] < 8;
  if (
    kernel[0] === 1 &&
    kernel[1] === 1 &&
    same &&
    enlarge === 1 &&
    fused.affine === undefined &&
    !fused.embedding
  )
    return 'product';
  if (kernel[0] === 3 && kernel[1] === 3 && stride === 1) {
    const centred = same && top === 1 && left === 1;
    const large = x[0] > 32 && mapsFor(capabilities, geometry).size === 7;
    if (enlarge === 1 && centred && y[0] <= fusedUpTo && (few || !large)) return 'fused';
    const tiles = ceilDiv(y[2], 4) * ceilDiv(y[3], 4);
    if (enlarge === 1 && !few && !(compact && tiles < TRANSFORM_TILES)) return 'winograd';
    if (enlarge === 2 && centred && !few) return 'upsample';
  }
  if ((compact || y[0] > tapsAbove) && !few) return 'taps';
  return y[0] > broadcastAbove ? 'broadcast' : 'direct';
}
