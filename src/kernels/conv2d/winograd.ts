// 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3) and F(7x7, 3x3): 36 products where the direct sum has 144, and
// 81 where it has 441.
//
// Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016):
//   Y = Aᵀ [ (G g Gᵀ) ∘ (Bᵀ d B) ] A
// for an output tile Y, the 3x3 weights g and the input d around the tile, two pixels more each way. Over channels
// the product ∘ becomes 36 or 81 matrix products, one a place of the transformed tile. Tiles are numbered over the
// whole batch, so that the columns of the products are full whatever the size of the image.
//
// In f32 only: of the outputs' standard deviation the transforms lose 3e-5 at worst with tiles of 4, 1e-4 with tiles of
// 7 (2e-6 and 8e-6 in the mean; winograd-maps.ts). A UNet at 28x28, 14x14 and 7x7 takes a tenth less time with these.
// On 2 cores of a software adapter, in GFLOP/s of the direct sum (bench/kernels.ts, `conv2d`): 150 for 128 channels at
// 32x32 and 175 for 256 at 16x16, where the direct sum by broadcast has 75 at most.

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
 * Tiles of 7 where they save a quarter of the products or more, for they lose more digits: at 7x7, 14x14 and 28x28.
 * Not for compact weights, of which they make twice as many factors, and not on GPUs, where they are not measured.
 */
export function mapsFor({ family }: Capabilities, { y: [, , h, w], compact }: Geometry): Maps {
  const products = ({ size }: Maps) => ceilDiv(h, size) * ceilDiv(w, size) * (size + 2) ** 2;
  if (!CONVOLUTIONS[family].tilesOf7 || compact) return F4;
  return products(F7) <= 0.75 * products(F4) ? F7 : F4;
}

/** Three steps a pass: tiles of x transformed, their products with the weights, and these transformed back. */
export function winograd(capabilities: Capabilities, geometry: Geometry): Routine {
  const maps = mapsFor(capabilities, geometry);
  return inPasses(capabilities, geometry, {
    columns: tileCount(geometry, maps.size),
    weights: maps.G,
    input: (range) => inputTransform(capabilities, geometry, maps, range),
    output: (range) => outputTransform(capabilities, geometry, maps, range),
  });
}
