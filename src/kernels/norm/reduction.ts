// Sums over the invocations of a workgroup.

import type { Capabilities } from '../device/device.ts';

export interface Reduction {
  readonly enable: readonly 'subgroups'[];
  /** Invocations of the workgroup. */
  readonly lanes: number;
  /** `reduce(v, lane) -> type`: the sum over the workgroup in every invocation; call it in uniform control flow. */
  readonly wgsl: string;
}

/**
 * How a family sums over a workgroup. `subgroup`: the workgroup is one subgroup, no memory and no barrier;
 * otherwise a tree in workgroup memory over `width` invocations, a power of two. The order is the same on every call, so results are reproducible.
 */
export function reduction(
  { family, subgroupSize }: Capabilities,
  type: 'f32' | 'vec2f',
  width = 64,
): Reduction {
  if (family === 'subgroup')
    return {
      enable: ['subgroups'],
      lanes: subgroupSize,
      wgsl: /* wgsl */ `
fn reduce(v: ${type}, lane: u32) -> ${type} {
  return subgroupAdd(v);
}
`,
    };
  return {
    enable: [],
    lanes: width,
    wgsl: /* wgsl */ `
var<workgroup> partial: array<${type}, ${width}>;
fn reduce(v: ${type}, lane: u32) -> ${type} {
  workgroupBarrier(); // the sums of the call before have been read
  partial[lane] = v;
  for (var half = ${width / 2}u; half > 0; half /= 2) {
    workgroupBarrier();
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  workgroupBarrier();
  return partial[0];
}
`,
  };
}
