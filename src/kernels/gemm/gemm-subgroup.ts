// GEMM whose operands are broadcast between the lanes of one subgroup: the family of software adapters.
//
// Versions on lavapipe (2 cores, Mesa 25.0.7, 8 lanes), each with its idea and its rate in GFLOP/s. The tiles
// were measured on prototypes with matrices of 512.
// - Tile of 16 x 32, k not unrolled: 57.
// - Tile of 32 x 32: 68; with k unrolled by 2: 75.
// - Tile of 32 x 64: 76 to 79; with k unrolled by 2: 85 to 88 (the tile of many columns here); by 4: 47,
//   because the code exceeds the instruction cache.
// - Factor a as f16 with f32 sums, 32 x 64, k by 2: 94.
// - Prefetch of a large b by one lane per cache line: 32 to 44 for 96 -> 32 channels at 14x14.
// - Tile of 32 x 32 with k unrolled by 4 for at most 32 columns: 96 -> 96 products of 32 columns in a UNet at
//   n = 32 take 11.5 ms, and 13.3 ms without it.

import type { Capabilities } from '../device/device.ts';
import { defineKernel, type Kernel, u32 } from '../device/kernel.ts';
import type { TiledKernel } from '../device/tuning.ts';
import {
  EXAMPLE,
  type GemmSpec,
  gemmBindings,
  gemmGrid,
  gemmParts,
  gemmShape,
  gemmUniforms,
  type Tile,
  unroll,
} from './gemm-spec.ts';

/** The most accumulators of a lane, in vec4s. With more, the unrolled loop exceeds a 32 KB instruction cache. */
const ACCUMULATORS = 64;

/**
 * A matrix b of more bytes does not stay in a core's cache; its rows are too far apart for the hardware to prefetch.
 */
const NEAR_BYTES = 1.5 * 2 ** 20;
/** A value that k & 7 does not have. */
const NEVER = 8;

/** How one subgroup computes its part of the result. */
export interface SubgroupTile {
  /** Elements of a that a lane loads at a time: a subgroup computes lanes·load rows. */
  readonly load: 1 | 2 | 4;
  /** vec4s of b that a lane loads for each k: a subgroup computes 4·lanes·vecs columns. */
  readonly vecs: number;
  /** Values of k by which the loop is unrolled: 1, 2, 4 or 8. */
  readonly depth: 1 | 2 | 4 | 8;
}

/**
 * Returns the tile for m rows. Its rows are the fewest of lanes·{2, 4} that hold min(m, 32). Its columns use
 * all accumulators, or one vec4 per lane if there are no more columns.
 */
function rule({ subgroupSize: lanes }: Capabilities, { m, columns }: GemmSpec): SubgroupTile {
  const load = ([2, 4] as const).find((l) => lanes * l >= Math.min(m, 32)) ?? 4;
  const vecs = columns <= 4 * lanes ? 1 : Math.max(1, Math.min(2, ACCUMULATORS / (lanes * load)));
  return { load, vecs, depth: lanes * load * vecs <= ACCUMULATORS / 2 ? 4 : 2 };
}

/** Returns the tiles that waste no half of their rows or columns, and whose accumulators do not exceed the limit. */
function candidates({ subgroupSize: lanes }: Capabilities, { m, columns }: GemmSpec): SubgroupTile[] {
  const tiles: SubgroupTile[] = [];
  for (const depth of [2, 4, 1, 8] as const)
    for (const load of [4, 2] as const)
      for (const vecs of [2, 1, 4]) {
        const accumulators = lanes * load * vecs;
        if (accumulators > ACCUMULATORS || accumulators * depth > 4 * ACCUMULATORS) continue;
        if (load > 2 && 2 * m <= lanes * load) continue;
        if (vecs > 1 && 2 * columns <= 4 * lanes * vecs) continue;
        tiles.push({ load, vecs, depth });
      }
  return tiles;
}

/** The GEMM of the `subgroup` family with its tiles as data. */
export const SUBGROUP_GEMM: TiledKernel<GemmSpec, SubgroupTile> = {
  shapeOf: (spec) => gemmShape('gemm.subgroup', spec),
  nameOf: ({ load, vecs, depth }) => `load${load}.vecs${vecs}.depth${depth}`,
  rule,
  candidates,
  kernel: gemmSubgroup,
  example: EXAMPLE,
};

/**
 * One workgroup is one subgroup and computes a tile of 32 x 64 (16 x 64 for few rows, 32 x 32 for few
 * columns; 8 lanes). Lane l loads elements 4l..4l+3 of a's row k and two vec4s of b's row k. Every element of
 * a is then broadcast to all lanes and multiplied with their columns. There is no workgroup memory and no
 * barrier. On a software adapter a load costs more than a multiplication, so an element of a is loaded once
 * per subgroup and an element of b once per 32 rows.
 *
 * In lavapipe's machine code (Mesa 25.0.7, AVX2) a product is a vmulps and a vaddps, never fused, and a
 * broadcast is a vpermd. In every iteration an accumulator is loaded from the stack and stored through a
 * vblendvps with the execution mask, which costs as much as three of these instructions. Loading an f32 takes
 * 10 instructions per lane as part of a vec4 and 18 alone, because bounds and mask are tested each time. So k
 * is unrolled: by 4 if a lane has 32 vec4s of accumulators, by 2 if it has 64 (unrolled by 3 or 4 the code
 * exceeds the instruction cache and is 5 to 50 % slower). The epilogue is a loop that stores four rows and
 * moves the other sums up by four. Fully unrolled it would take four times as long to compile and exceed the
 * instruction cache; an array of sums indexed by the loop would be read lane by lane.
 *
 * If b is large, the workgroup of the first rows touches the cache lines of b's next 8 rows, one per lane, so that the
 * cache misses overlap: 96 to 32 channels at 14x14 then run at 44 instead of 32 GFLOP/s (bench/kernels.ts, `linear`).
 */
function gemmSubgroup(
  { subgroupSize: lanes }: Capabilities,
  spec: GemmSpec,
  { load, vecs, depth }: SubgroupTile,
): Kernel {
  const rows = lanes * load;
  const tile: Tile = { rows, columns: 4 * lanes * vecs, load };
  const steps = Array.from({ length: depth }, (_, step) => step);
  const unit = load === 1 ? 'f32' : `vec${load}f`;
  const lane = (vector: string, i: number) =>
    `subgroupBroadcast(${vector}${load === 1 ? '' : `[${i % load}]`}, ${Math.floor(i / load)}u)`;
  const initial = (i: number) =>
    spec.bias ? `vec4f(subgroupBroadcast(biases[${i % 4}], ${Math.floor(i / 4)}u))` : 'vec4f(0)';
  const body = /* wgsl */ `
const ROWS = ${rows}u;
const LANES = ${lanes}u;
const NEVER = ${NEVER}u;
${gemmParts(spec, tile)}
@compute @workgroup_size(${lanes})
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = placeOf(group, groups);
  if (at.outside) { return; }
  let lastCol = u.columns - 1u;
  var pa = at.a + min(at.row / ${load}u + local.x, (u.m - 1u) / ${load}u);
  ${unroll(
    vecs,
    (j) => `let col${j} = min(at.col + local.x + ${j}u * LANES, lastCol);
  var pb${j} = at.b + col${j};`,
  )}
  ${spec.bias ? `let biases = bias[min(at.row / 4u + local.x, (u.m - 1u) / 4u)];` : ''}
  ${unroll(rows, (i) => unroll(vecs, (j) => `var c${i}_${j} = ${initial(i)};`))}
  var touched = 0.0;
  let touchCol = min(at.col + local.x % 4u * 4u, lastCol); // a cache line each
  let touch = select(NEVER, u.touch, at.row == 0u);
  for (var k = 0u; k < u.k; k += ${depth}u) {
    if ((k & 7u) == touch) {
      for (var row = select(k + 8u, 0u, k == 0u) + local.x / 4u; row < min(k + 16u, u.k); row += LANES / 4u) {
        touched = max(touched, b[at.b + row * u.bPitch + touchCol].x);
      }
    }
    let a0 = loadA(pa);
    ${unroll(vecs, (j) => `let b0_${j} = b[pb${j}];`)}
    ${unroll(
      depth - 1,
      (i) => `let in${i + 1} = k + ${i + 1}u < u.k;
    let a${i + 1} = select(${unit}(0), loadA(select(pa, pa + ${i + 1}u * u.aPitch, in${i + 1})), in${i + 1});
    ${unroll(vecs, (j) => `let b${i + 1}_${j} = b[select(pb${j}, pb${j} + ${i + 1}u * u.bPitch, in${i + 1})];`)}`,
    )}
    pa += ${depth}u * u.aPitch;
    ${unroll(vecs, (j) => `pb${j} += ${depth}u * u.bPitch;`)}
    ${unroll(
      rows,
      (i) => `{ ${unroll(depth, (s) => `let t${s} = vec4f(${lane(`a${s}`, i)});`)}
    ${unroll(vecs, (j) => {
      const chain = steps.reduce((sum, s) => `fma(t${s}, b${s}_${j}, ${sum})`, `c${i}_${j}`);
      return `c${i}_${j} = ${chain};`;
    })} }`,
    )}
  }
  if (touched == -1.0) { c0_0 = vec4f(touched); } // never true, as it starts at 0, but the compiler cannot know
  let end = min(at.row + ROWS, u.m);
  for (var row = at.row; row < end; row += 4u) {
    let pc = at.c + row * u.cPitch;
    ${unroll(
      4,
      (i) =>
        `if (row + ${i}u < end) { ${unroll(vecs, (j) => `finish(pc + ${i}u * u.cPitch + col${j}, c${i}_${j});`)} }`,
    )}
    ${unroll(rows - 4, (i) => unroll(vecs, (j) => `c${i}_${j} = c${i + 4}_${j};`))}
  }
}
`;
  return defineKernel({
    name: `gemm.subgroup.${rows}x${tile.columns}x${depth}`,
    enable: ['subgroups'],
    bindings: gemmBindings(spec, tile),
    uniforms: [
      ...gemmUniforms(spec, tile),
      // The kernel compares this with k & 7: 0 touches every 8th row.
      u32('touch', 4 * spec.k * spec.b.pitch > NEAR_BYTES ? 0 : NEVER),
    ],
    body,
    grid: gemmGrid(spec, tile),
  });
}
