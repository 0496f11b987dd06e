// The general convolution for any kernel, stride, padding and enlargement, in WGSL without optional features.

import { divisor } from '../device/indexing.ts';
import { ceilDiv, linearGrid, linearMain } from '../device/kernel.ts';
import type { Routine } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { eachTap, type Geometry, windowsOf } from './conv2d-shape.ts';
import { summedConv2d } from './conv2d-sums.ts';

const LANES = 64;

/**
 * y[o, p] = sum over c, i, j of weight[o, c, i, j] x[c, p stride + (i, j) - padding], and the fused operands. An
 * invocation computes 4 output channels at 4 consecutive columns: 16 products per input vec4 and weight vec4.
 */
export function directConv2d(geometry: Geometry): Routine {
  const { y } = geometry;
  const vectors = pitch(y) / 4;
  const blocks = ceilDiv(y[0], 4);
  const main = /* wgsl */ `fn addends(o: u32, n: vec4u) -> vec4f {
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
  return summedConv2d(geometry, {
    name: 'conv2d.plain',
    load: 4,
    blocks,
    uniforms: divisor('vectors', vectors),
    main,
    grid: linearGrid(ceilDiv(vectors * blocks, LANES)),
  });
}
