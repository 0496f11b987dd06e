// 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3) and F(7x7, 3x3): 36 products per tile instead of the
// direct sum's 144, and 81 instead of 441.
//
// Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016):
//   Y = Aᵀ [ (G g Gᵀ) ∘ (Bᵀ d B) ] A
// for an output tile Y, the 3x3 weights g and the tile's input d, which is two pixels larger in each
// direction. Over channels the product ∘ becomes 36 or 81 matrix products, one per place of the transformed
// tile. Tiles are numbered over the whole batch, so that the products have full columns for every image size.
//
// The arithmetic is f32. Relative to the outputs' standard deviation, the largest error is 3e-5 with tiles of
// 4 and 1e-4 with tiles of 7; the mean errors are 2e-6 and 8e-6 (winograd-maps.ts).
//
// Versions, on 2 cores of lavapipe, in GFLOP/s of the direct sum (bench/kernels.ts, `conv2d`), which reaches
// 75 at most:
// - F(4x4, 3x3): 150 for 128 channels at 32x32, 175 for 256 at 16x16; prototypes reached 185 to 197 and 244.
// - F(7x7, 3x3) if it saves enough: a UNet at 28x28, 14x14 and 7x7, n = 32, takes 4.0 ms per evaluation
//   instead of 4.6.
// - F(4x4, 3x3) on an H200: 118.7 TFLOP/s for 320 channels at 64x64, n = 16, whose plain matrix products
//   reach 33.8 (bench/results/nvidia-h200.json).

import type { Capabilities } from '../device/device.ts';
import { ceilDiv } from '../device/kernel.ts';
import type { Routine } from '../device/routine.ts';
import { inPasses } from './conv2d-passes.ts';
import type { Geometry } from './conv2d-shape.ts';
import { tileCount } from './conv2d-tiles.ts';
import { CONVOLUTIONS } from './families.ts';
import { F4, F7, type Maps } from './winograd-maps.ts';
import { inputTransform, outputTransform } from './winograd-transforms.ts';

/**
 * Returns the maps for an output. Tiles of 7 lose more digits, so they are used only if they save at least a
 * quarter of the products, as at 7x7, 14x14 and 28x28. They are not used for compact weights, because they
 * need twice as many factors.
 */
export function mapsFor({ family }: Capabilities, { y: [, , h, w], compact }: Geometry): Maps {
  const products = ({ size }: Maps) => ceilDiv(h, size) * ceilDiv(w, size) * (size + 2) ** 2;
  if (!CONVOLUTIONS[family].tilesOf7 || compact) return F4;
  return products(F7) <= 0.75 * products(F4) ? F7 : F4;
}

/**
 * Returns the routine. A pass transforms tiles of x, multiplies them with the weights, and transforms the
 * products back.
 */
export function winogradConv2d(capabilities: Capabilities, geometry: Geometry): Routine {
  const maps = mapsFor(capabilities, geometry);
  return inPasses(capabilities, geometry, {
    columns: tileCount(geometry, maps.size),
    weights: maps.G,
    input: (range) => inputTransform(capabilities, geometry, maps, range),
    output: (range) => outputTransform(capabilities, geometry, maps, range),
  });
}
