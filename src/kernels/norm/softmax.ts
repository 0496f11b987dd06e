// Softmax over the keys of attention scores, in place.
//
// In the prototype of attention with 8x4 heads of 256 tokens x 64 on lavapipe (2 cores), one lane per four
// columns takes 2.0 ms of 14.7.

import type { Capabilities } from '../device/device.ts';
import {
  accumulate,
  ceilDiv,
  defineKernel,
  type Kernel,
  LINEAR_GROUP,
  linearGrid,
  u32,
} from '../device/kernel.ts';
import { SUMS } from './families.ts';

interface ColumnSoftmax {
  /** Number of consecutive score matrices. */
  readonly matrices: number;
  /** Rows of a matrix, one per key. */
  readonly keys: number;
  /** Columns of a matrix, one per query; a multiple of 4. */
  readonly pitch: number;
  /** If given, column i is the query of token `firstQuery` + i, and keys of later tokens get the weight 0. */
  readonly firstQuery?: number;
}

/**
 * Returns a kernel for s[b][j][i] = exp(s[b][j][i] - max_j) / Σ_j exp(s[b][j][i] - max_j), all in f32.
 *
 * An invocation owns four columns as a vec4, so that no value crosses lanes and a sum runs in the order of the keys. A
 * GPU needs more invocations than there are columns: there 16 invocations share a column, each sums every 16th key, and
 * the 16 parts are added in their order. Causal: keys that none of a vec4's four queries sees are written but not read.
 */
export function columnSoftmax({ family }: Capabilities, options: ColumnSoftmax): Kernel {
  const { matrices, keys, pitch, firstQuery } = options;
  const causal = firstQuery !== undefined;
  const { softmaxMembers: members, softmaxWidth: width } = SUMS[family];
  const shared = members > 1;
  /** Returns WGSL that combines all members' `value` in the order of the members. */
  const reduce = (value: string, combine: (a: string, b: string) => string) =>
    shared
      ? `parts[member][lane] = ${value};
  workgroupBarrier();
  ${value} = parts[0][lane];
  for (var m = 1u; m < ${members}u; m++) { ${value} = ${combine(value, 'parts[m][lane]')}; }
  workgroupBarrier();`
      : '';
  const score = causal ? 'select(NEVER, s[i], vec4u(i) <= own)' : 's[i]';
  const body = /* wgsl */ `
${LINEAR_GROUP}
${causal ? 'const NEVER = vec4f(-3e38);' : ''}
${shared ? `var<workgroup> parts: array<array<vec4f, ${width}>, ${members}>;` : ''}
@compute @workgroup_size(${width}, ${members})
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let lane = local.x;
  let member = local.y;
  // Invocations past the last column recompute it, write nothing, and still reach the barriers.
  let wanted = linearGroup(group, groups) * ${width}u + lane;
  let column = min(wanted, u.columns - 1u);
  let matrix = column / u.pitch;
  let start = matrix * u.keys * u.pitch + column - matrix * u.pitch;
  let first = start + min(member, u.keys - 1u) * u.pitch;
  let behind = start + select(0u, u.keys * u.pitch, wanted == column);
  ${
    causal
      ? `let token = min(u.firstQuery + 4u * (column - matrix * u.pitch) + vec4u(0, 1, 2, 3), vec4u(u.keys - 1u));
  let own = start + token * u.pitch; // the last key that each query sees
  let end = min(behind, own.w + u.pitch);`
      : 'let end = behind;'
  }
  let step = ${members}u * u.pitch;
  var top = ${causal ? 'NEVER' : 's[first]'};
  for (var i = first; i < end; i += step) { top = max(top, ${score}); }
  ${reduce('top', (a, b) => `max(${a}, ${b})`)}
  var sum = vec4f(0);
  for (var i = start + member * u.pitch; i < end; i += step) {
    let e = exp(${score} - top);
    sum += e;
    s[i] = e;
  }
  ${reduce('sum', (a, b) => `${a} + ${b}`)}
  let share = 1 / sum;
  for (var i = start + member * u.pitch; i < end; i += step) { s[i] *= share; }
  ${causal ? 'for (var i = end + member * u.pitch; i < behind; i += step) { s[i] = vec4f(0); }' : ''}
}
`;
  const columns = (matrices * pitch) / 4;
  return defineKernel({
    name: `softmax.${shared ? 'tile' : 'plain'}${causal ? '.causal' : ''}`,
    bindings: [accumulate('s', 'vec4f')],
    uniforms: [
      u32('columns', columns),
      u32('keys', keys),
      u32('pitch', pitch / 4),
      ...(causal ? [u32('firstQuery', firstQuery)] : []),
    ],
    body,
    grid: linearGrid(ceilDiv(columns, width)),
  });
}
