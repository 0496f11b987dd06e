// The general convolution for subgroups of few lanes: an implicit matrix product whose weights are broadcast
// from lane to lane. It serves strides, kernels and sizes that have no transform.

import type { Capabilities } from '../device/device.ts';
import { divisor } from '../device/indexing.ts';
import { ceilDiv, LINEAR_GROUP, linearGrid, linearMain, read, u32, write } from '../device/kernel.ts';
import { type Routine, step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { unroll } from '../gemm/gemm-spec.ts';
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

/**
 * y[o, p] = sum over c, i, j of weight[o, c, i, j] x[c, p stride + (i, j) - padding], and the fused operands. A
 * workgroup is one subgroup. With 8 lanes it computes 32 channels (16 if there are no more) at 32 columns. A lane
 * gathers its own four pixels of a tap and loads its share of the tap's weights: 8 loads for 128 products. 32 channels,
 * stride 2, from 14x14, n = 64: 2.3 ms; the direct kernel takes 6.8 (bench/kernels.ts, `conv2d`).
 */
export function broadcastConv2d({ subgroupSize: lanes }: Capabilities, geometry: Geometry): Routine {
  const { y, weights, fused } = geometry;
  const load = y[0] <= 2 * lanes ? 2 : 4;
  const rows = load * lanes;
  const on = prologue(geometry);
  const out = epilogue(geometry);
  const vectors = pitch(y) / 4;
  const groups = ceilDiv(vectors, lanes);
  const blocks = ceilDiv(y[0], rows);
  const body = /* wgsl */ `${LINEAR_GROUP}${COLUMN_PLACE}${weightWgsl(weights, load)}${on.wgsl}${out.wgsl}
${linearMain(lanes)}
  let index = linearGroup(group, groups);
  let block = quotient(index, u.groups, u.groupsInverse);
  if (block >= u.blocks) { return; }
  let vector = (index - block * u.groups) * ${lanes} + local;
  ${windowsOf('4 * vector')}
  ${unroll(rows, (i) => `var sum${i} = vec4f();`)}
  var w = min(block * ${lanes} + local, u.weightRow - 1);
  for (var c = 0u; c < u.channels; c++) {
    ${eachTap(/* wgsl */ `let b = weightAt(w);
        ${unroll(rows, (r) => `sum${r} = fma(vec4f(subgroupBroadcast(b[${r % load}], ${Math.floor(r / load)}u)), a, sum${r});`)}
        w += u.weightRow;`)}
  }
  if (vector >= u.vectors) { return; }
  var sums: array<vec4f, ${rows}>;
  ${unroll(rows, (r) => `sums[${r}] = sum${r};`)}
  let end = min(u.outChannels, (block + 1) * ${rows});
  var to = block * ${rows} * u.vectors + vector;
  var r = 0u;
  for (var o = block * ${rows}; o < end; o++) {
    let add = vec4f(addend(o, n.x), addend(o, n.y), addend(o, n.z), addend(o, n.w));
    y[to] = finished(sums[r] + add, to);
    to += u.vectors;
    r++;
  }
}`;
  const summed = step({
    name: `conv2d.broadcast.${rows}.${fusedTag(fused)}`,
    enable: ['subgroups'],
    bindings: [
      read('x'),
      read('weight', weightElement(weights, load)),
      ...on.bindings,
      ...out.bindings,
      write('y', 'vec4f'),
    ],
    uniforms: [
      ...columnUniforms(y),
      ...windowUniforms(geometry),
      ...divisor('groups', groups),
      u32('vectors', vectors),
      u32('blocks', blocks),
      u32('outChannels', y[0]),
      u32('weightRow', paddedChannels(y[0]) / load),
      ...on.uniforms,
      ...out.uniforms,
    ],
    body,
    grid: linearGrid(groups * blocks),
  });
  return {
    steps: [summed],
    scratch: {},
    packing: { weight: packRows(geometry) },
  };
}
