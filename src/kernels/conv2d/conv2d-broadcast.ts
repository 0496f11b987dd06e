// The general convolution for subgroups of few lanes: an implicit matrix product whose weights are broadcast
// from lane to lane. It serves strides, kernels and sizes that have no transform.

import type { Capabilities } from '../device/device.ts';
import { divisor } from '../device/indexing.ts';
import { ceilDiv, linearGrid, linearMain, u32 } from '../device/kernel.ts';
import type { Routine } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import { eachTap, type Geometry, windowsOf } from './conv2d-shape.ts';
import { summedConv2d } from './conv2d-sums.ts';

/**
 * y[o, p] = sum over c, i, j of weight[o, c, i, j] x[c, p stride + (i, j) - padding], and the fused operands. A
 * workgroup is one subgroup. With 8 lanes it computes 32 channels (16 if there are no more) at 32 columns. A lane
 * gathers its own four pixels of a tap and loads its share of the tap's weights: 8 loads for 128 products. 32 channels,
 * stride 2, from 14x14, n = 64: 2.3 ms; the direct kernel takes 6.8 (bench/kernels.ts, `conv2d`).
 */
export function broadcastConv2d({ subgroupSize: lanes }: Capabilities, geometry: Geometry): Routine {
  const { y } = geometry;
  const load = y[0] <= 2 * lanes ? 2 : 4;
  const rows = load * lanes;
  const vectors = pitch(y) / 4;
  const groups = ceilDiv(vectors, lanes);
  const blocks = ceilDiv(y[0], rows);
  const main = /* wgsl */ `${linearMain(lanes)}
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
  return summedConv2d(geometry, {
    name: `conv2d.broadcast.${rows}`,
    enable: ['subgroups'],
    load,
    blocks,
    uniforms: [...divisor('groups', groups), u32('vectors', vectors)],
    main,
    grid: linearGrid(groups * blocks),
  });
}
