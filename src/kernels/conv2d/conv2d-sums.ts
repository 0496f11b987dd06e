// What the general convolution kernels have in common: they sum over the taps of all input channels, for blocks of output
// channels at four columns per invocation, and have no scratch memory.

import { type KernelSpec, LINEAR_GROUP, read, type Uniform, u32, write } from '../device/kernel.ts';
import { type Routine, step } from '../device/routine.ts';
import {
  COLUMN_PLACE,
  columnUniforms,
  epilogue,
  fusedTag,
  type Geometry,
  prologue,
  windowUniforms,
} from './conv2d-shape.ts';
import { packRows, paddedChannels, weightElement, weightWgsl } from './conv2d-weights.ts';

/** The part of a kernel that is its own. */
interface Summation extends Pick<KernelSpec, 'enable' | 'grid'> {
  /** The first parts of the kernel's name. */
  readonly name: string;
  /** Output channels whose weights one load returns. */
  readonly load: 2 | 4;
  /** Blocks of output channels. */
  readonly blocks: number;
  readonly uniforms: readonly Uniform[];
  readonly main: string;
}

/**
 * Returns a routine for y[o, p] = sum over c, i, j of weight[o, c, i, j] x[c, p stride + (i, j) - padding], and the fused
 * operands.
 */
export function summedConv2d(geometry: Geometry, own: Summation): Routine {
  const { y, weights, fused } = geometry;
  const on = prologue(geometry);
  const out = epilogue(geometry);
  const summed = step({
    ...own,
    name: `${own.name}.${fusedTag(fused)}`,
    bindings: [
      read('x'),
      read('weight', weightElement(weights, own.load)),
      ...on.bindings,
      ...out.bindings,
      write('y', 'vec4f'),
    ],
    uniforms: [
      ...columnUniforms(y),
      ...windowUniforms(geometry),
      ...own.uniforms,
      u32('blocks', own.blocks),
      u32('outChannels', y[0]),
      u32('weightRow', paddedChannels(y[0]) / own.load),
      ...on.uniforms,
      ...out.uniforms,
    ],
    body: `${LINEAR_GROUP}${COLUMN_PLACE}${weightWgsl(weights, own.load)}${on.wgsl}${out.wgsl}
${own.main}`,
  });
  return { steps: [summed], scratch: {}, packing: { weight: packRows(geometry) } };
}
