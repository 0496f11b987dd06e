// Transposes columns to rows, for products over all columns.

import { divisor, QUOTIENT } from '../device/indexing.ts';
import {
  ceilDiv,
  defineKernel,
  type Kernel,
  LINEAR_GROUP,
  linearGrid,
  linearMain,
  read,
  u32,
  write,
} from '../device/kernel.ts';
import { pitch, type Shape } from '../device/tensor.ts';

const LANES = 32;

/**
 * transposed[p][r] = x[r][first + p] for `count` columns from `first` on, a multiple of 4; rows are padded to
 * vec4s.
 * Operands x [c, n, h, w], transposed. An invocation transposes a block of 4x4.
 */
export function transpose(x: Shape, first: number, count: number): Kernel {
  const rowVectors = ceilDiv(x[0], 4);
  return defineKernel({
    name: 'transpose',
    bindings: [read('x', 'vec4f'), write('transposed', 'vec4f')],
    uniforms: [
      ...divisor('rowVectors', rowVectors),
      u32('lastRow', x[0] - 1),
      u32('xPitch', pitch(x) / 4),
      u32('first', first / 4),
      u32('vectors', ceilDiv(count, 4)),
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${QUOTIENT}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let vector = quotient(index, u.rowVectors, u.rowVectorsInverse);
  if (vector >= u.vectors) { return; }
  let block = index - vector * u.rowVectors;
  let at = u.first + vector;
  let r0 = x[4 * block * u.xPitch + at];
  let r1 = x[min(4 * block + 1, u.lastRow) * u.xPitch + at];
  let r2 = x[min(4 * block + 2, u.lastRow) * u.xPitch + at];
  let r3 = x[min(4 * block + 3, u.lastRow) * u.xPitch + at];
  var to = 4 * vector * u.rowVectors + block;
  transposed[to] = vec4f(r0.x, r1.x, r2.x, r3.x);
  to += u.rowVectors;
  transposed[to] = vec4f(r0.y, r1.y, r2.y, r3.y);
  to += u.rowVectors;
  transposed[to] = vec4f(r0.z, r1.z, r2.z, r3.z);
  to += u.rowVectors;
  transposed[to] = vec4f(r0.w, r1.w, r2.w, r3.w);
}`,
    grid: linearGrid(ceilDiv(ceilDiv(count, 4) * rowVectors, LANES)),
  });
}
