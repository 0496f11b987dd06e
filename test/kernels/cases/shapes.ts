// Shapes for tests of elementwise ops: the smallest, rows that are not a multiple of a vec4, sizes on both sides
// of a workgroup, and those of the shipped network.

import type { Shape } from '../../../src/kernels/device/tensor.ts';

export const shapes: readonly Shape[] = [
  [1, 1, 1, 1],
  [3, 5, 1, 1],
  [1, 1, 2, 3],
  [5, 2, 5, 3],
  [2, 3, 7, 7],
  [1, 1, 3, 85],
  [1, 1, 16, 16],
  [1, 1, 1, 257],
  [64, 3, 7, 7],
  [32, 3, 14, 14],
  [16, 3, 28, 28],
];
