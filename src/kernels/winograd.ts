// 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3): 36 products where the direct sum has 144.
//
// Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), with the points 0, ±1, ±2, ∞:
//   Y = Aᵀ [ (G g Gᵀ) ∘ (Bᵀ d B) ] A
// for an output tile Y of 4x4, the 3x3 weights g and the 6x6 input d around the tile. Over channels the product ∘
// becomes 36 matrix products, one a place of the transformed tile. Tiles are numbered over the whole batch, so that
// the columns of the products are full whatever the size of the image.
//
// In f32 only: the transforms amplify rounding to about 3e-5 of the outputs' standard deviation at worst.
// On 2 cores of a software adapter, in GFLOP/s of the direct sum (bench/kernels.ts, `conv2d`): 150 for 128 channels at
// 32x32 and 175 for 256 at 16x16, where the direct sum by broadcast has 75 at most; 76 for 64 channels at 7x7,
// where tiles of 4 cover 8x8.

import { inPasses } from './conv2d-passes.ts';
import type { Geometry } from './conv2d-shape.ts';
import { tileCount } from './conv2d-tiles.ts';
import type { Capabilities } from './device.ts';
import type { Routine } from './routine.ts';
import { inputTransform, outputTransform } from './winograd-transforms.ts';

export const G: readonly (readonly number[])[] = [
  [1 / 4, 0, 0],
  [-1 / 6, -1 / 6, -1 / 6],
  [-1 / 6, 1 / 6, -1 / 6],
  [1 / 24, 1 / 12, 1 / 6],
  [1 / 24, -1 / 12, 1 / 6],
  [0, 0, 1],
];

/** Three steps a pass: tiles of x transformed, their products with the weights, and these transformed back. */
export function winograd(capabilities: Capabilities, geometry: Geometry): Routine {
  return inPasses(capabilities, geometry, {
    columns: tileCount(geometry),
    weights: G,
    input: (range) => inputTransform(capabilities, geometry, range),
    output: (range) => outputTransform(capabilities, geometry, range),
  });
}
