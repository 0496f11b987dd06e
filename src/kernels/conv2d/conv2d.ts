// Convolution with its usual neighbours fused in: before it a group norm's affine map and activation, after
// it bias, embedding, residual and scale.
//
// Methods, each with its idea and a measurement on lavapipe (2 cores, 3x3 kernels). Rates are GFLOP/s of the
// direct sum; `methodOf` has more times.
// - direct: 4 channels x 4 columns per invocation, any geometry. 32 channels, stride 2, from 14x14, n = 64:
//   6.8 ms.
// - broadcast: the same sum with weights broadcast between lanes: 2.3 ms for that case, and 75 GFLOP/s at
//   most.
// - taps: one matrix product over gathered pixels. 64 -> 64, stride 2, from 14x14, n = 32: 2.5 ms (broadcast
//   5.1).
// - winograd F(4x4, 3x3): 36 products instead of 144; 150 for 128 channels at 32x32, 175 for 256 at 16x16.
// - winograd F(7x7, 3x3): 81 products instead of 441. A UNet at 28x28, 14x14 and 7x7, n = 32: 4.0 ms per
//   evaluation instead of 4.6.
// - fused: Winograd along rows only, in one kernel. 16 -> 16 at 28x28, n = 64: 4.7 ms (F(4x4, 3x3) 6.3).
// - upsample: 9 products per small pixel instead of 36: 83 for 32 channels from 14x14, 147 for 96 from 7x7.
// On an H200 Winograd F(4x4, 3x3) reaches 118.7 TFLOP/s for 320 channels at 64x64, n = 16; taps reach 9.4 for
// 1280 channels at 8x8 (bench/results/nvidia-h200.json).

import type { Capabilities } from '../device/device.ts';
import { withoutMatrix } from '../device/families.ts';
import { ceilDiv } from '../device/kernel.ts';
import type { Routine } from '../device/routine.ts';
import { linear } from '../gemm/linear.ts';
import { broadcastConv2d } from './conv2d-broadcast.ts';
import { directConv2d } from './conv2d-direct.ts';
import { matrixConv2d, reachesMatrix } from './conv2d-matrix.ts';
import { factorBytes } from './conv2d-passes.ts';
import { type Conv2dOptions, type Geometry, geometryOf } from './conv2d-shape.ts';
import { tapsConv2d } from './conv2d-taps.ts';
import { upsampledConv2d } from './conv2d-upsample.ts';
import { CONVOLUTIONS } from './families.ts';
import { mapsFor, winogradConv2d } from './winograd.ts';
import { fusedConv2d, paddedBytes } from './winograd-fused.ts';

export { type Conv2dOptions, outputSize } from './conv2d-shape.ts';

/**
 * Returns a routine for y = (weight * act(a x + b) + bias + embedding + residual) scale. Zeros pad the
 * convolution's input after map and activation.
 *
 * Operands: x [c, n, h, w]; weight [oc, c, kh, kw], packed by the routine; bias [oc]; affine [2c, n, 1, 1],
 * whose rows 0..c-1 are a and c..2c-1 are b; embedding [oc, n, 1, 1]; residual and y [oc, n, oh, ow] with
 * `[oh, ow] = outputSize(options)`.
 *
 * The method depends on family, channels and geometry, but not on n. Each method sums in an order of its own
 * that does not depend on n either, so a sample has the same bytes in any batch.
 * @throws ShapeError if the options do not describe a convolution.
 */
export function conv2d(capabilities: Capabilities, options: Conv2dOptions): Routine {
  const plain = geometryOf(options);
  const places = plain.enlarge === 2 ? 3 : mapsFor(capabilities, plain).size + 2; // along one side of a tile
  const compact = plain.compact || factorBytes(plain, places) > capabilities.maxBindingBytes;
  const geometry = { ...plain, compact };
  if (isProduct(geometry)) return linear(capabilities, options);
  if (capabilities.family === 'matrix' && reachesMatrix(geometry))
    return matrixConv2d(capabilities, geometry);
  return inFamily(withoutMatrix(capabilities), geometry);
}

/** Returns the routine of the method that measured fastest in families without matrix units. */
function inFamily(capabilities: Capabilities, geometry: Geometry): Routine {
  switch (methodOf(capabilities, geometry)) {
    case 'fused':
      return fusedConv2d(capabilities, geometry);
    case 'winograd':
      return winogradConv2d(capabilities, geometry);
    case 'upsample':
      return upsampledConv2d(capabilities, geometry);
    case 'taps':
      return tapsConv2d(capabilities, geometry);
    case 'broadcast':
      return broadcastConv2d(capabilities, geometry);
    case 'direct':
      return directConv2d(geometry);
  }
}

/** Whether a convolution is one matrix product over all pixels, with only what a product can fuse. */
const isProduct = ({ x, y, kernel, stride, enlarge, fused }: Geometry): boolean =>
  kernel[0] === 1 &&
  kernel[1] === 1 &&
  stride === 1 &&
  y[2] === x[2] &&
  y[3] === x[3] &&
  enlarge === 1 &&
  fused.affine === undefined &&
  !fused.embedding;

type Method = 'fused' | 'winograd' | 'upsample' | 'taps' | 'broadcast' | 'direct';

/**
 * Returns the method that measured fastest on lavapipe (bench/kernels.ts, `conv2d`). In ms of processor time
 * on 2 cores at n = 64: 16->16 at 28x28: fused 4.7, winograd with tiles of 4 6.3; 1->16: 1.0, 2.5; 16->1:
 * 2.5, 4.9; at n = 32, fused and winograd with tiles of 7, 32->16: 4.7, 4.5; 80->16: 11.3, 8.4; 64->64 with
 * stride 2 from 14x14: broadcast 5.1, taps 2.5.
 *
 * Compact weights, f16, in wall ms at n = 1 and 4: 320->320 at 64x64: winograd 51 (47 with its weights kept
 * transformed), taps 185, broadcast 359; 640->640 at 32x32: winograd 49, taps 141, broadcast 380; 1280->1280
 * at 16x16: winograd 168 and 174, taps 143 and 582; at 8x8: winograd 167 and 167, taps 37 and 140.
 */
function methodOf(capabilities: Capabilities, geometry: Geometry): Method {
  const { fusedUpTo, tapsAbove, transformTiles, broadcastAbove } = CONVOLUTIONS[capabilities.family];
  const { x, y, kernel, stride, enlarge, top, left, compact } = geometry;
  const same = stride === 1 && y[2] === x[2] * enlarge && y[3] === x[3] * enlarge;
  const few = x[0] < 8 || y[0] < 8;
  if (kernel[0] === 3 && kernel[1] === 3 && stride === 1) {
    const centred = same && top === 1 && left === 1;
    const large = x[0] > 32 && mapsFor(capabilities, geometry).size === 7;
    const fused = enlarge === 1 && centred && y[0] <= fusedUpTo && (few || !large);
    if (fused && paddedBytes(geometry, 1) <= capabilities.maxBindingBytes) return 'fused';
    const tiles = ceilDiv(y[2], 4) * ceilDiv(y[3], 4);
    if (enlarge === 1 && !few && !(compact && tiles < transformTiles)) return 'winograd';
    if (enlarge === 2 && centred && !few) return 'upsample';
  }
  if ((compact || y[0] > tapsAbove) && !few) return 'taps';
  return y[0] > broadcastAbove ? 'broadcast' : 'direct';
}
