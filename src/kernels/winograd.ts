// 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3): 36 products where the direct sum has 144.
//
// Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), with the points 0, ±1, ±2, ∞:
//   Y = Aᵀ [ (G g Gᵀ) ∘ (Bᵀ d B) ] A
// for an output tile Y of 4x4, the 3x3 weights g and the 6x6 input d around the tile. Over channels the product ∘
// becomes 36 matrix products, one a place of the transformed tile.

import type { Geometry } from './conv2d-shape.ts';
import type { Capabilities } from './device.ts';
import { gemm } from './gemm.ts';
import { ceilDiv } from './kernel.ts';
import type { Packing, Routine, Step } from './routine.ts';
import { inputTransform, outputTransform } from './winograd-transforms.ts';

/** Places of a transformed tile. */
export const PLACES = 36;
const SIZE = 6;

const G: readonly (readonly number[])[] = [
  [1 / 4, 0, 0],
  [-1 / 6, -1 / 6, -1 / 6],
  [-1 / 6, 1 / 6, -1 / 6],
  [1 / 24, 1 / 12, 1 / 6],
  [1 / 24, -1 / 12, 1 / 6],
  [0, 0, 1],
];

const pad4 = (count: number): number => ceilDiv(count, 4) * 4;

/** U [place][ic][oc padded to 4] = G g Gᵀ, in f32 whatever the weights are stored as. */
function packTransformed({ x, y }: Geometry): Packing {
  const [ic] = x;
  const [oc] = y;
  const row = pad4(oc);
  return {
    key: `winograd.${oc}x${ic}`,
    bytes: 4 * PLACES * ic * row,
    pack: (values) => {
      const out = new Float32Array(PLACES * ic * row);
      const half = new Float64Array(SIZE * 3);
      for (let o = 0; o < oc; o++)
        for (let c = 0; c < ic; c++) {
          const g = (o * ic + c) * 9;
          for (let i = 0; i < SIZE; i++)
            for (let k = 0; k < 3; k++)
              half[3 * i + k] =
                G[i]![0]! * values[g + k]! + G[i]![1]! * values[g + 3 + k]! + G[i]![2]! * values[g + 6 + k]!;
          for (let i = 0; i < SIZE; i++)
            for (let j = 0; j < SIZE; j++)
              out[((SIZE * i + j) * ic + c) * row + o] =
                G[j]![0]! * half[3 * i]! + G[j]![1]! * half[3 * i + 1]! + G[j]![2]! * half[3 * i + 2]!;
        }
      return out;
    },
  };
}

/** Bytes that the transformed tiles of one pass may take: they should stay near the cores. */
const PASS_BYTES = 2 ** 25;

/**
 * The three steps, in as many passes as keep the transformed tiles small. Tiles are numbered over the whole batch,
 * so that the columns of the products are full whatever the size of the image.
 */
export function winograd(capabilities: Capabilities, geometry: Geometry): Routine {
  const { x, y } = geometry;
  const [oc, n, h, w] = y;
  const tiles = n * ceilDiv(h, 4) * ceilDiv(w, 4);
  const perTile = 4 * PLACES * Math.max(x[0], oc);
  const limit = Math.min(PASS_BYTES, capabilities.maxBindingBytes);
  const passes = ceilDiv(tiles * perTile, limit);
  const count = ceilDiv(ceilDiv(tiles, passes), 64) * 64;
  const steps: Step[] = [];
  for (let first = 0; first < tiles; first += count) {
    const range = { first, count: Math.min(count, tiles - first), pitch: Math.min(count, pad4(tiles)) };
    const on = inputTransform(geometry, range);
    const out = outputTransform(geometry, range);
    const product = gemm(capabilities, {
      m: oc,
      k: x[0],
      columns: range.count,
      batch: [1, PLACES],
      a: { pitch: pad4(oc), inner: x[0] * pad4(oc) },
      b: { pitch: range.pitch, inner: x[0] * range.pitch },
      c: { pitch: range.pitch, inner: oc * range.pitch },
    });
    steps.push(on, { kernel: product, operands: ['weight', 'transformed', 'products'] }, out);
  }
  const pitch = Math.min(count, pad4(tiles));
  return {
    steps,
    scratch: { transformed: 4 * PLACES * x[0] * pitch, products: 4 * PLACES * oc * pitch },
    packing: { weight: packTransformed(geometry) },
  };
}
