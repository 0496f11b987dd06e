// Sums over the invocations of a workgroup.

import type { Capabilities } from '../device/device.ts';
import { SUMS } from './families.ts';

interface Reduction {
  readonly enable: readonly 'subgroups'[];
  /** Invocations of the workgroup. */
  readonly lanes: number;
  /** `reduce(v, lane) -> f32`: returns the workgroup's sum in every invocation; call it in uniform control flow. */
  readonly wgsl: string;
}

/**
 * Returns how a family sums f32 over a workgroup. The order is the same on every call, so that results are
 * reproducible.
 */
export function reduction({ family, subgroupSize }: Capabilities): Reduction {
  if (SUMS[family].reduction === 'tree') return { enable: [], lanes: 64, wgsl: treeReduction('f32', 64) };
  return {
    enable: ['subgroups'],
    lanes: subgroupSize,
    wgsl: /* wgsl */ `
fn reduce(v: f32, lane: u32) -> f32 {
  return subgroupAdd(v);
}
`,
  };
}

/** Returns WGSL of `reduce` as a tree in workgroup memory over `width` invocations, a power of two. */
export const treeReduction = (type: 'f32' | 'vec2f', width: number): string => /* wgsl */ `
var<workgroup> partial: array<${type}, ${width}>;
fn reduce(v: ${type}, lane: u32) -> ${type} {
  workgroupBarrier(); // every invocation has read the sum of the previous call
  partial[lane] = v;
  for (var half = ${width / 2}u; half > 0; half /= 2) {
    workgroupBarrier();
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  workgroupBarrier();
  return partial[0];
}
`;
