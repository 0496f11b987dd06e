// GEMM with tiles staged in workgroup memory: the family of GPUs.
//
// Versions on an H200 (bench/results/nvidia-h200.json, nvidia-h200-tiles.json), in TFLOP/s for 4096 x 4096 x 4096:
// - This kernel, 64 x 128 x 8 in two buffers: 33.8 with f32 factors, 32.7 with factor a in f16; 3.7 and 19.5
//   in two measurements of 1024 x 1024 x 1024.
// - Its successors in bench/matrix-kernels, which the product does not use yet: 50.5 and
//   214.

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

/** Rows of a and b staged at a time. */
const DEPTH = 8;
/** 16 x 8 invocations, each computing tile.rows / 8 rows of 8 columns. */
const THREADS_X = 16;
const THREADS_Y = 8;
const INVOCATIONS = THREADS_X * THREADS_Y;

/** Returns 32 rows for the layers of small models, so that m of 16, 32 or 96 wastes little, else 64. */
const tileFor = (m: number): Tile => ({
  rows: m % 64 !== 0 && m % 64 <= 32 && m < 256 ? 32 : 64,
  columns: 128,
  load: 4,
});

/**
 * One workgroup of 128 invocations computes 64 x 128 results (32 x 128 for few rows), 8 x 8 (4 x 8) per
 * invocation, in strips of 8 k. The next strip is fetched into registers while the current one is multiplied,
 * and then written to the other half of the workgroup memory. This takes one barrier per strip and 12 KiB. 8
 * x 8 results take 4 vec4 reads of workgroup memory for 64 fma. Rows and columns are assigned in vec4s, so
 * that neighbouring invocations read neighbouring banks.
 */
export function gemmTile(spec: GemmSpec): Kernel {
  const tile = tileFor(spec.m);
  const rowVecs = tile.rows / 4;
  const colVecs = tile.columns / 4;
  const perThread = rowVecs / THREADS_Y; // vec4s of rows per invocation
  const loadsA = Math.ceil((DEPTH * rowVecs) / INVOCATIONS);
  const loadsB = (DEPTH * colVecs) / INVOCATIONS;
  const partial = DEPTH * rowVecs < INVOCATIONS;
  const rowOf = (i: number) => `(local.y + ${i >> 2}u * ${THREADS_Y}u) * 4u + ${i & 3}u`;
  const fetch = (k: string) => /* wgsl */ `
    ${unroll(
      loadsA,
      (s) => `{ let i = index + ${s * INVOCATIONS}u; let kk = ${k} + i / ${rowVecs}u;
      fetchA${s} = select(vec4f(0), loadA(at.a + min(kk, u.k - 1u) * u.aPitch + min(at.row / 4u + i % ${rowVecs}u, (u.m - 1u) / 4u)), kk < u.k); }`,
    )}
    ${unroll(
      loadsB,
      (s) => `{ let i = index + ${s * INVOCATIONS}u; let kk = ${k} + i / ${colVecs}u;
      fetchB${s} = b[at.b + min(kk, u.k - 1u) * u.bPitch + min(at.col + i % ${colVecs}u, lastCol)]; }`,
    )}`;
  const stage = (half: string) => /* wgsl */ `
    ${unroll(loadsA, (s) => `${partial ? `if (index < ${DEPTH * rowVecs}u) ` : ''}{ tileA[${half} * ${DEPTH * rowVecs}u + index + ${s * INVOCATIONS}u] = fetchA${s}; }`)}
    ${unroll(loadsB, (s) => `tileB[${half} * ${DEPTH * colVecs}u + index + ${s * INVOCATIONS}u] = fetchB${s};`)}`;
  const initial = (i: number) =>
    spec.bias ? `vec4f(bias[min((at.row + ${rowOf(i)}) / 4u, (u.m - 1u) / 4u)][${i & 3}])` : 'vec4f(0)';
  const body = /* wgsl */ `
var<workgroup> tileA: array<vec4f, ${2 * DEPTH * rowVecs}>;
var<workgroup> tileB: array<vec4f, ${2 * DEPTH * colVecs}>;
${gemmParts(spec, tile)}
@compute @workgroup_size(${THREADS_X}, ${THREADS_Y})
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = placeOf(group, groups);
  if (at.outside) { return; }
  let lastCol = u.columns - 1u;
  ${unroll(loadsA, (s) => `var fetchA${s}: vec4f;`)}
  ${unroll(loadsB, (s) => `var fetchB${s}: vec4f;`)}
  ${unroll(4 * perThread, (i) => `var c${i}_0 = ${initial(i)}; var c${i}_1 = c${i}_0;`)}
  ${fetch('0u')}
  ${stage('0u')}
  workgroupBarrier();
  for (var k = 0u; k < u.k; k += ${DEPTH}u) {
    let half = (k / ${DEPTH}u) & 1u;
    ${fetch(`(k + ${DEPTH}u)`)}
    for (var s = 0u; s < ${DEPTH}u; s++) {
      ${unroll(perThread, (r) => `let a${r} = tileA[(half * ${DEPTH}u + s) * ${rowVecs}u + local.y + ${r * THREADS_Y}u];`)}
      let b0 = tileB[(half * ${DEPTH}u + s) * ${colVecs}u + local.x];
      let b1 = tileB[(half * ${DEPTH}u + s) * ${colVecs}u + local.x + ${THREADS_X}u];
      ${unroll(4 * perThread, (i) => `{ let t = vec4f(a${i >> 2}[${i & 3}]); c${i}_0 = fma(t, b0, c${i}_0); c${i}_1 = fma(t, b1, c${i}_1); }`)}
    }
    ${stage('(1u - half)')}
    workgroupBarrier();
  }
  let col0 = at.col + local.x;
  let col1 = col0 + ${THREADS_X}u;
  ${unroll(
    4 * perThread,
    (i) => `{ let row = at.row + ${rowOf(i)};
    if (row < u.m && col0 <= lastCol) { finish(at.c + row * u.cPitch + col0, c${i}_0); }
    if (row < u.m && col1 <= lastCol) { finish(at.c + row * u.cPitch + col1, c${i}_1); } }`,
  )}
}
`;
  return defineKernel({
    name: `gemm.tile.${tile.rows}x${tile.columns}`,
    bindings: gemmBindings(spec, tile),
    uniforms: gemmUniforms(spec, tile),
    body,
    grid: gemmGrid(spec, tile),
  });
}
