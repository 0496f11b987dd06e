// Group norms to check.

import type { Shape } from '../../../src/kernels/device/tensor.ts';
import type { GroupNormOptions } from '../../../src/kernels/norm/group-norm.ts';

export interface GroupNormCase {
  readonly name: string;
  readonly options: GroupNormOptions;
}

const norm = (x: Shape, groups: number, scaleShift = false): GroupNormCase => ({
  name: `[${x}] G=${groups}${scaleShift ? ' scale shift' : ''}`,
  options: { x, groups, eps: 1e-5, scaleShift },
});

export const cases: readonly GroupNormCase[] = [
  norm([1, 1, 1, 1], 1),
  norm([2, 3, 1, 1], 1, true),
  norm([3, 1, 1, 2], 3),
  norm([4, 2, 5, 3], 2, true),
  norm([12, 3, 1, 7], 4),
  norm([12, 5, 2, 4], 3, true),
  norm([6, 2, 3, 21], 6),
  norm([6, 2, 8, 8], 2),
  norm([6, 2, 5, 13], 2, true),
  norm([4, 1, 16, 15], 1),
  norm([4, 3, 16, 16], 4, true),
  norm([20, 2, 4, 65], 2),
  norm([16, 3, 28, 28], 8, true),
  norm([48, 2, 28, 28], 8),
  norm([32, 3, 14, 14], 8, true),
  norm([64, 3, 7, 7], 8, true),
  norm([96, 5, 7, 7], 8),
  norm([10, 2, 32, 32], 2, true), // long enough for a wide workgroup
  norm([128, 2, 32, 32], 32),
];
