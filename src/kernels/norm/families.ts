// How sums and softmaxes differ between the kernel families.

import type { Family } from '../device/families.ts';

interface SumVariant {
  /** How a workgroup adds up its invocations' values: across the one subgroup that it is, or as a tree. */
  readonly reduction: 'subgroup' | 'tree';
  /** The most elements that one team sums: few enough to lose no digits, and to spread a long row over all cores. */
  readonly longestSum: number;
  /** Invocations that share a column of a softmax, and the vec4s of columns of one workgroup. */
  readonly softmaxMembers: number;
  readonly softmaxWidth: number;
}

const GPU: SumVariant = { reduction: 'tree', longestSum: 16384, softmaxMembers: 16, softmaxWidth: 8 };

export const SUMS: Readonly<Record<Family, SumVariant>> = {
  subgroup: { reduction: 'subgroup', longestSum: 2048, softmaxMembers: 1, softmaxWidth: 16 },
  plain: { reduction: 'tree', longestSum: 2048, softmaxMembers: 1, softmaxWidth: 16 },
  tile: GPU,
  matrix: GPU,
};
