// GEMM in registers only. It runs wherever WebGPU does, and the tests compare the other families with it.

import { defineKernel, type Kernel } from '../device/kernel.ts';
import {
  type GemmSpec,
  gemmBindings,
  gemmGrid,
  gemmParts,
  gemmUniforms,
  type Tile,
  unroll,
} from './gemm-spec.ts';

const TILE: Tile = { rows: 16, columns: 128, load: 4 };

/**
 * One invocation computes 8 rows x 8 columns: for every k, two vec4s of a and two of b give 16 vec4 products.
 * A workgroup of 2 x 16 invocations computes a tile of 16 x 128.
 */
export function gemmPlain(spec: GemmSpec): Kernel {
  const initial = (i: number) =>
    spec.bias ? `vec4f(bias[min(row / 4u + ${i >> 2}u, (u.m - 1u) / 4u)][${i & 3}])` : 'vec4f(0)';
  const body = /* wgsl */ `
${gemmParts(spec, TILE)}
@compute @workgroup_size(16, 2)
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = placeOf(group, groups);
  let row = at.row + 8u * local.y;
  let col0 = at.col + local.x;
  let col1 = col0 + 16u;
  if (at.outside || row >= u.m || col0 >= u.columns) { return; }
  let lastCol = u.columns - 1u;
  var pa0 = at.a + row / 4u;
  var pa1 = at.a + min(row / 4u + 1u, (u.m - 1u) / 4u);
  var pb0 = at.b + col0;
  var pb1 = at.b + min(col1, lastCol);
  ${unroll(8, (i) => `var c${i}_0 = ${initial(i)}; var c${i}_1 = c${i}_0;`)}
  for (var k = 0u; k < u.k; k++) {
    let a0 = loadA(pa0);
    let a1 = loadA(pa1);
    let b0 = b[pb0];
    let b1 = b[pb1];
    pa0 += u.aPitch;
    pa1 += u.aPitch;
    pb0 += u.bPitch;
    pb1 += u.bPitch;
    ${unroll(8, (i) => `{ let t = vec4f(a${i >> 2}[${i & 3}]); c${i}_0 = fma(t, b0, c${i}_0); c${i}_1 = fma(t, b1, c${i}_1); }`)}
  }
  let pc = at.c + row * u.cPitch;
  ${unroll(
    8,
    (i) => `if (row + ${i}u < u.m) {
    finish(pc + ${i}u * u.cPitch + col0, c${i}_0);
    if (col1 <= lastCol) { finish(pc + ${i}u * u.cPitch + col1, c${i}_1); }
  }`,
  )}
}
`;
  return defineKernel({
    name: 'gemm.plain.16x128',
    bindings: gemmBindings(spec, TILE),
    uniforms: gemmUniforms(spec, TILE),
    body,
    grid: gemmGrid(spec, TILE),
  });
}
