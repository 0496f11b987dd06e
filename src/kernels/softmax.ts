// Softmax over the keys of attention scores, in place.

import { accumulate, ceilDiv, defineKernel, type Kernel, LINEAR_GROUP, linearGrid, u32 } from './kernel.ts';

export interface ColumnSoftmax {
  /** Score matrices, one behind the other. */
  readonly matrices: number;
  /** Rows of a matrix, one a key. */
  readonly keys: number;
  /** Columns of a matrix, a multiple of 4; one a query. */
  readonly pitch: number;
}

/**
 * s[b][j][i] = exp(s[b][j][i] - max_j) / Σ_j exp(s[b][j][i] - max_j), all in f32.
 * One invocation owns four columns, so that no value crosses lanes and a column's sum runs in the order of its keys.
 */
export function columnSoftmax({ matrices, keys, pitch }: ColumnSoftmax): Kernel {
  const body = /* wgsl */ `
${LINEAR_GROUP}
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let column = linearGroup(group, groups) * 16u + local;
  if (column >= u.columns) { return; }
  let matrix = column / u.pitch;
  let first = matrix * u.keys * u.pitch + column - matrix * u.pitch;
  let end = first + u.keys * u.pitch;
  var top = s[first];
  for (var i = first; i < end; i += u.pitch) { top = max(top, s[i]); }
  var sum = vec4f(0);
  for (var i = first; i < end; i += u.pitch) {
    let e = exp(s[i] - top);
    sum += e;
    s[i] = e;
  }
  let share = 1 / sum;
  for (var i = first; i < end; i += u.pitch) { s[i] *= share; }
}
`;
  const columns = (matrices * pitch) / 4;
  return defineKernel({
    name: 'softmax.columns',
    bindings: [accumulate('s', 'vec4f')],
    uniforms: [u32('columns', columns), u32('keys', keys), u32('pitch', pitch / 4)],
    body,
    grid: linearGrid(ceilDiv(columns, 16)),
  });
}
