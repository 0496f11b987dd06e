// The general convolution for any kernel, stride, padding and enlargement, in WGSL without optional features.

import { divisor } from '../device/indexing.ts';
import { ceilDiv, LINEAR_GROUP, linearGrid, linearMain, read, u32, write } from '../device/kernel.ts';
import { type Routine, step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import {
  COLUMN_PLACE,
  columnUniforms,
  eachTap,
  epilogue,
  fusedTag,
  type Geometry,
  prologue,
  windowsOf,
  windowUniforms,
} from './conv2d-shape.ts';
import { packRows, paddedChannels, weightElement, weightWgsl } from './conv2d-weights.ts';

const LANES = 64;

/**
 * y[o, p] = sum over c, i, j of weight[o, c, i, j] x[c, p stride + (i, j) - padding], and the fused operands. An
 * invocation computes 4 output channels at 4 consecutive columns: 16 products per input vec4 and weight vec4.
 */
export function directConv2d(geometry: Geometry): Routine {
  const { y, weights, fused } = geometry;
  const on = prologue(geometry);
  const out = epilogue(geometry);
  const vectors = pitch(y) / 4;
  const blocks = ceilDiv(y[0], 4);
  const body = /* wgsl */ `${LINEAR_GROUP}${COLUMN_PLACE}${weightWgsl(weights)}${on.wgsl}${out.wgsl}
fn addends(o: u32, n: vec4u) -> vec4f {
  return vec4f(addend(o, n.x), addend(o, n.y), addend(o, n.z), addend(o, n.w));
}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let block = quotient(index, u.vectors, u.vectorsInverse);
  let vector = index - block * u.vectors;
  if (block >= u.blocks) { return; }
  ${windowsOf('4 * vector')}
  var sum0 = vec4f();
  var sum1 = vec4f();
  var sum2 = vec4f();
  var sum3 = vec4f();
  var w = block;
  for (var c = 0u; c < u.channels; c++) {
    ${eachTap(/* wgsl */ `let b = weightAt(w);
        sum0 += b.x * a;
        sum1 += b.y * a;
        sum2 += b.z * a;
        sum3 += b.w * a;
        w += u.weightRow;`)}
  }
  let o = 4 * block;
  let to = o * u.vectors + vector;
  ${[0, 1, 2, 3].map((i) => `if (o + ${i} < u.outChannels) { y[to + ${i} * u.vectors] = finished(sum${i} + addends(o + ${i}, n), to + ${i} * u.vectors); }`).join('\n  ')}
}`;
  const summed = step({
    name: `conv2d.plain.${fusedTag(fused)}`,
    bindings: [
      read('x'),
      read('weight', weightElement(weights)),
      ...on.bindings,
      ...out.bindings,
      write('y', 'vec4f'),
    ],
    uniforms: [
      ...columnUniforms(y),
      ...windowUniforms(geometry),
      ...divisor('vectors', vectors),
      u32('blocks', blocks),
      u32('outChannels', y[0]),
      u32('weightRow', paddedChannels(y[0]) / 4),
      ...on.uniforms,
      ...out.uniforms,
    ],
    body,
    grid: linearGrid(ceilDiv(vectors * blocks, LANES)),
  });
  return {
    steps: [summed],
    scratch: {},
    packing: { weight: packRows(geometry) },
  };
}
