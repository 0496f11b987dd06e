// GEMM with tiles staged in workgroup memory and multiplied in the invocations' registers: the family of GPUs.
//
// Versions on an H200 (bench/results/nvidia-h200.json, nvidia-h200-tiles.json), in TFLOP/s for the products
// 4096 x 4096 x 4096, 320 x 65536 x 320, 1280 x 4096 x 1280 and 1024 x 1024 x 1024, f32 throughout:
// - 64 x 128 x 8 with 8 x 8 results per invocation, in two buffers, no size as data: 33.7, 34.7, -, 19.5.
// - This kernel, without bounds checks and epilogue: 128 x 64 x 16 with 8 x 8 in one buffer (the rule here): 45.2,
//   36.8, 44.4, 35.6. 128 x 128 x 16 with 8 x 16 in one buffer: 48.6, 37.8, 30.0, 13.4. 64 x 128 x 16 with 8 x 8 in two
//   buffers: 38.9, 37.5, 37.8, 32.4.
// - The loop over a strip not unrolled: 40.5 instead of 44.3 for 128 x 128 x 16 with 8 x 8.
// - Factors staged as f16 and multiplied as f32: 31.8, where f16 factors staged as f32 reach 33.9.
// - Factors staged and multiplied as f16, 64 x 128 x 32: 50.5, 48.2, 48.8, 41.8. Not used: sums of a strip are then f16,
//   and the bytes depend on the tile.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, defineKernel, type Kernel } from '../device/kernel.ts';
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

/** How a workgroup computes its part of the result. */
export interface ThreadTile {
  /** Rows and columns of the result that one workgroup computes. */
  readonly rows: number;
  readonly columns: number;
  /** Rows of a and b that are staged at a time. */
  readonly depth: number;
  /** Rows and columns of one invocation, multiples of 4, assigned in fours. */
  readonly threadRows: number;
  readonly threadColumns: number;
  /** One strip in workgroup memory with two barriers, or two with one. */
  readonly buffers: 1 | 2;
  /** Whether the loop over a strip is unrolled. */
  readonly unrolled: boolean;
}

const invocations = ({ rows, columns, threadRows, threadColumns }: ThreadTile): number =>
  (rows / threadRows) * (columns / threadColumns);

const workgroupBytes = ({ rows, columns, depth, buffers }: ThreadTile): number =>
  4 * buffers * depth * (rows + columns);

/** Returns whether a device can run a tile. Fewer than 32 invocations leave most of a GPU's subgroup idle. */
const runs = (capabilities: Capabilities, tile: ThreadTile): boolean =>
  invocations(tile) >= 32 &&
  invocations(tile) <= capabilities.maxInvocations &&
  workgroupBytes(tile) <= capabilities.workgroupBytes;

type Sizes = readonly [
  rows: number,
  columns: number,
  depth: number,
  threadRows: number,
  threadColumns: number,
];
const tileOf = (
  [rows, columns, depth, threadRows, threadColumns]: Sizes,
  buffers: 1 | 2 = 1,
  unrolled = true,
): ThreadTile => ({ rows, columns, depth, threadRows, threadColumns, buffers, unrolled });

/**
 * Returns a tile of 12 KiB and 128 invocations, whose rows waste little of m. A software driver compiles the loop as
 * it is: unrolled it would take seconds.
 */
function rule({ software }: Capabilities, { m }: GemmSpec): ThreadTile {
  const rest = m % 128;
  const sizes: Sizes =
    m < 256 && rest > 0 && rest <= 32
      ? [32, 128, 16, 4, 8]
      : m < 256 && rest > 0 && rest <= 64
        ? [64, 128, 16, 8, 8]
        : [128, 64, 16, 8, 8];
  return tileOf(sizes, 1, !software);
}

/** Tiles in the order of their rates on an H200, first those for large products. */
const TILES: readonly ThreadTile[] = [
  tileOf([128, 64, 16, 8, 8]),
  tileOf([128, 128, 16, 8, 16]),
  tileOf([64, 128, 16, 8, 8]),
  tileOf([64, 64, 16, 8, 8]),
  tileOf([64, 128, 16, 8, 8], 2),
  tileOf([64, 64, 16, 4, 8]),
  tileOf([32, 128, 16, 4, 8]),
  tileOf([128, 256, 16, 8, 8]),
  tileOf([64, 64, 32, 4, 4]),
  tileOf([32, 64, 16, 4, 4]),
  tileOf([128, 64, 16, 8, 8], 1, false),
  tileOf([128, 128, 8, 8, 8], 2),
  tileOf([32, 64, 32, 4, 8]),
  tileOf([64, 128, 8, 8, 8], 2, false),
];

/**
 * Returns the tiles that the device can run and that compute at most twice the rows and columns that there are; on a
 * software device with loops as they are.
 */
const candidates = (capabilities: Capabilities, { m, columns }: GemmSpec): readonly ThreadTile[] =>
  TILES.filter(
    (tile) =>
      runs(capabilities, tile) &&
      (tile.rows === 32 || tile.rows < 2 * m) &&
      (tile.columns === 64 || tile.columns < 2 * columns),
  ).map((tile) => (capabilities.software ? { ...tile, unrolled: false } : tile));

const nameOf = ({ rows, columns, depth, threadRows, threadColumns, buffers, unrolled }: ThreadTile): string =>
  `${rows}x${columns}x${depth}.${threadRows}x${threadColumns}.${buffers}buf${unrolled ? '.unrolled' : ''}`;

/** The GEMM of the `tile` family with its tiles as data. */
export const TILE_GEMM: TiledKernel<GemmSpec, ThreadTile> = {
  shapeOf: (spec) => gemmShape('gemm.tile', spec),
  nameOf,
  rule,
  candidates,
  kernel: (_, spec, tile) => gemmTile(spec, tile),
  example: EXAMPLE,
};

/**
 * One workgroup computes rows x columns results in strips of `depth` values of k. While a strip is multiplied, the
 * next one is fetched into registers, and then written to workgroup memory: to the same place with two barriers per
 * strip, or with two buffers to the other half with one. Rows and columns are assigned to invocations in vec4s, so
 * that neighbouring invocations read neighbouring banks.
 *
 * Rows and columns past the end are those of the last vec4, and their results are not written. Past the end of k,
 * factor a is 0.
 */
function gemmTile(spec: GemmSpec, tile: ThreadTile): Kernel {
  const { rows, columns, depth, threadRows, threadColumns, buffers, unrolled } = tile;
  const parts: Tile = { rows, columns, load: 4 };
  const threads = invocations(tile);
  const [across, down] = [columns / threadColumns, rows / threadRows];
  const [rowVecs, colVecs] = [rows / 4, columns / 4];
  const [stripA, stripB] = [depth * rowVecs, depth * colVecs];
  /** Returns WGSL of the turns in which the invocations handle `total` vec4s, one for each in every turn. */
  const turns = (total: number, line: (at: string, turn: number) => string): string =>
    unroll(ceilDiv(total, threads), (turn) => {
      const text = line(`(index + ${turn * threads}u)`, turn);
      return (turn + 1) * threads > total ? `if (index + ${turn * threads}u < ${total}u) { ${text} }` : text;
    });
  const declare = (total: number, line: (at: string, turn: number) => string): string =>
    unroll(ceilDiv(total, threads), (turn) => line(`(index + ${turn * threads}u)`, turn));
  const fetch = /* wgsl */ `
    ${turns(stripA, (at, s) => `nextA${s} = select(vec4f(0), loadA(min(fromA${s} + k * u.aPitch, lastA${s})), k + ${at} / ${rowVecs}u < u.k);`)}
    ${turns(stripB, (_, s) => `nextB${s} = b[min(fromB${s} + k * u.bPitch, lastB${s})];`)}`;
  const store = (half: string) => /* wgsl */ `
    ${turns(stripA, (at, s) => `tileA[${half} * ${stripA}u + ${at}] = nextA${s};`)}
    ${turns(stripB, (at, s) => `tileB[${half} * ${stripB}u + ${at}] = nextB${s};`)}`;
  const half = buffers === 2 ? 'half' : '0u';
  const [aVecs, bVecs] = [threadRows / 4, threadColumns / 4];
  const each = (line: (i: number, j: number) => string): string =>
    unroll(threadRows, (i) => unroll(bVecs, (j) => line(i, j)));
  const rowOf = (i: number) => `(y + ${(i >> 2) * down}u) * 4u + ${i & 3}u`;
  const initial = (i: number) =>
    spec.bias ? `vec4f(bias[min((at.row + ${rowOf(i)}) / 4u, (u.m - 1u) / 4u)][${i & 3}])` : 'vec4f(0)';
  const product = (s: string) => /* wgsl */ `{
      ${unroll(aVecs, (i) => `let a${i} = tileA[${half} * ${stripA}u + ${s} * ${rowVecs}u + y + ${i * down}u];`)}
      ${unroll(bVecs, (j) => `let b${j} = tileB[${half} * ${stripB}u + ${s} * ${colVecs}u + x + ${j * across}u];`)}
      ${each((i, j) => `sum${i}_${j} = fma(vec4f(a${i >> 2}[${i & 3}]), b${j}, sum${i}_${j});`)}
    }`;
  const multiply = unrolled
    ? unroll(depth, (s) => product(`${s}u`))
    : `for (var s = 0u; s < ${depth}u; s++) ${product('s')}`;
  const loop =
    buffers === 2
      ? /* wgsl */ `${store('0u')}
  workgroupBarrier();
  for (var strip = 0u; strip < u.k; strip += ${depth}u) {
    let half = (strip / ${depth}u) & 1u;
    k = strip + ${depth}u;
    if (k < u.k) { ${fetch} }
    ${multiply}
    if (k < u.k) { ${store('(1u - half)')} }
    workgroupBarrier();
  }`
      : /* wgsl */ `for (var strip = 0u; strip < u.k; strip += ${depth}u) {
    ${store('0u')}
    workgroupBarrier();
    k = strip + ${depth}u;
    if (k < u.k) { ${fetch} }
    ${multiply}
    workgroupBarrier();
  }`;
  const body = /* wgsl */ `
var<workgroup> tileA: array<vec4f, ${buffers * stripA}>;
var<workgroup> tileB: array<vec4f, ${buffers * stripB}>;
${gemmParts(spec, parts)}
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = placeOf(group, groups);
  if (at.outside) { return; }
  let lastCol = u.columns - 1u;
  let x = index % ${across}u;
  let y = index / ${across}u;
  ${declare(
    stripA,
    (i, s) => `let rowA${s} = at.a + min(at.row / 4u + ${i} % ${rowVecs}u, (u.m - 1u) / 4u);
  let fromA${s} = rowA${s} + ${i} / ${rowVecs}u * u.aPitch;
  let lastA${s} = rowA${s} + (u.k - 1u) * u.aPitch;
  var nextA${s}: vec4f;`,
  )}
  ${declare(
    stripB,
    (i, s) => `let columnB${s} = at.b + min(at.col + ${i} % ${colVecs}u, lastCol);
  let fromB${s} = columnB${s} + ${i} / ${colVecs}u * u.bPitch;
  let lastB${s} = columnB${s} + (u.k - 1u) * u.bPitch;
  var nextB${s}: vec4f;`,
  )}
  ${each((i, j) => `var sum${i}_${j} = ${initial(i)};`)}
  var k = 0u;
  ${fetch}
  ${loop}
  ${each(
    (i, j) => `{ let row = at.row + ${rowOf(i)};
    let col = at.col + x + ${j * across}u;
    if (row < u.m && col <= lastCol) { finish(at.c + row * u.cPitch + col, sum${i}_${j}); } }`,
  )}
}
`;
  return defineKernel({
    name: `gemm.tile.${nameOf(tile)}`,
    bindings: gemmBindings(spec, parts),
    uniforms: gemmUniforms(spec, parts),
    body,
    grid: gemmGrid(spec, parts),
  });
}
