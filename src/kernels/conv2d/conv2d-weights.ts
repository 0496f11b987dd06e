// The layout of a convolution's weights on the device: k-major [k][outChannels], rows padded to a multiple of 8.

import { ceilDiv } from '../device/kernel.ts';
import { transposed } from '../device/packing.ts';
import type { Packing, WeightDtype } from '../device/routine.ts';
import type { Geometry } from './conv2d-shape.ts';

/** Returns the length of a row of packed weights. */
export const paddedChannels = (outChannels: number): number => ceilDiv(outChannels, 8) * 8;

/** Packs weights [oc, ic, kh, kw] as [k][padded channels] with k = (input channel, kernel row, kernel column). */
export function packRows({ x, y, kernel: [kh, kw], weights }: Geometry): Packing {
  const k = x[0] * kh * kw;
  return transposed(`conv2d.rows.${y[0]}x${k}.${weights}`, k, paddedChannels(y[0]), weights);
}

/** Returns the element type of packed weights that are loaded `load` at a time. */
export function weightElement(weights: WeightDtype, load: 2 | 4 = 4): string {
  if (weights === 'f16') return load === 2 ? 'u32' : 'vec2u';
  return load === 2 ? 'vec2f' : 'vec4f';
}

/** Returns WGSL of `weightAt(i: u32) -> vec2f | vec4f`. */
export function weightWgsl(weights: WeightDtype, load: 2 | 4 = 4): string {
  const halves = load === 2 ? 'unpack2x16float(v)' : 'vec4f(unpack2x16float(v.x), unpack2x16float(v.y))';
  return /* wgsl */ `
fn weightAt(i: u32) -> vec${load}f { let v = weight[i]; return ${weights === 'f16' ? halves : 'v'}; }
`;
}
