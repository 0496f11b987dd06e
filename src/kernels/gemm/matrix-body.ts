// WGSL that the GEMM and the convolution on matrix units share: staging of factor a, the loop over k, and the epilogue.
//
// WGSL names a matrix type by its columns first: left<f16, K, M>, right<f16, N, K>, result<f32, N, M>.

import type { WeightDtype } from '../device/routine.ts';
import { unroll } from './gemm-spec.ts';
import { areaA, areaB, type MatrixTile, scratchMatrices, strips, subgroups } from './matrix-tile.ts';

/** The extensions and the compiler rule that every kernel on matrix units needs. */
export const MATRIX_MODULE = {
  enable: ['f16', 'subgroups', 'chromium_experimental_subgroup_matrix'],
  // The rule cannot see that the index of a subgroup is the same in all its lanes.
  unchecked: ['chromium.subgroup_matrix_uniformity'],
} as const;

/** The type that holds a vector of f16 values in workgroup memory. */
export const HALVES = { 2: 'u32', 4: 'vec2u', 8: 'vec4u' } as const;

/** WGSL that stages the strips of a and b in workgroup memory. */
export interface Staging {
  /** Declarations before the loop: registers and offsets. */
  readonly before: string;
  /** Loads the next strip into registers; the caller advances the offsets. */
  readonly fetch: string;
  /** Writes the registers to `tileA` and `tileB`; `half` is 0 or the name of the u32 that counts strips there. */
  readonly store: (half: string) => string;
}

/**
 * Returns WGSL in which `threads` invocations process `total` vectors: `line(s)` for each round s, guarded if
 * the round is partial.
 */
export const rounds = (total: number, threads: number, line: (s: number) => string): string =>
  unroll(Math.ceil(total / threads), (s) =>
    (s + 1) * threads <= total ? `{ ${line(s)} }` : `if (index + ${s * threads}u < ${total}u) { ${line(s)} }`,
  );

/** Returns WGSL of the first vector of strip `half` in workgroup memory, where a strip has `size` vectors. */
export const stripStart = (half: string, size: number): string =>
  half === '0u' ? '' : `${half} * ${size}u + `;

/** Returns WGSL of the f16 vector of `load` values, from registers `name(v)` that hold four values each. */
export function packed(type: WeightDtype, load: 4 | 8, name: (v: number) => string): string {
  const four = (v: number) => (type === 'f16' ? name(v) : `bitcast<vec2u>(vec4<f16>(${name(v)}))`);
  return load === 4 ? four(0) : `vec4u(${four(0)}, ${four(1)})`;
}

export interface MatrixBody {
  readonly tile: MatrixTile;
  readonly lanes: number;
  readonly staging: Staging;
  /** A staged strip has this many times `tile.depth` rows. */
  readonly taps: number;
  /** f16 values of an element of `tileB`. */
  readonly loadB: 2 | 4 | 8;
  /**
   * Functions and other declarations of the module, among them `storeSums(first, row, column, sums: vec4f)`, which
   * stores four sums of a row if they lie inside the result.
   */
  readonly declarations: string;
  /** WGSL at the start of `main` that declares `first`, `firstRow` and `firstColumn`. */
  readonly place: string;
}

const loopOf = ({ fetch, store }: Staging, pipeline: MatrixTile['pipeline'], multiply: string): string => {
  switch (pipeline) {
    case 'none':
      return /* wgsl */ `
  for (var step = 0u; step < u.steps; step++) {
    ${fetch}
    ${store('0u')}
    workgroupBarrier();
    ${multiply}
    workgroupBarrier();
  }`;
    case 'registers':
      return /* wgsl */ `
  ${fetch}
  for (var step = 0u; step < u.steps; step++) {
    ${store('0u')}
    workgroupBarrier();
    if (step + 1u < u.steps) { ${fetch} }
    ${multiply}
    workgroupBarrier();
  }`;
    case 'double':
      return /* wgsl */ `
  ${fetch}
  ${store('0u')}
  workgroupBarrier();
  for (var step = 0u; step < u.steps; step++) {
    let half = step & 1u;
    if (step + 1u < u.steps) { ${fetch} }
    ${multiply}
    if (step + 1u < u.steps) { ${store('(1u - half)')} }
    workgroupBarrier();
  }`;
    default:
      return pipeline satisfies never;
  }
};

/**
 * Returns WGSL of workgroup memory and `main`: the loop over k and the epilogue, shared by GEMM and
 * convolution.
 */
export function matrixBody({
  tile,
  lanes,
  staging,
  taps,
  loadB: wideB,
  declarations,
  place,
}: MatrixBody): string {
  const { unit, load } = tile;
  const partRows = tile.rows / tile.subgroupRows;
  const partColumns = tile.columns / tile.subgroupColumns;
  const [down, across] = [partRows / unit.M, partColumns / unit.N];
  const left = `subgroup_matrix_left<f16, ${unit.K}, ${unit.M}>`;
  const right = `subgroup_matrix_right<f16, ${unit.N}, ${unit.K}>`;
  const result = `subgroup_matrix_result<f32, ${unit.N}, ${unit.M}>`;
  const [pitchA, pitchB] = [(tile.rows + tile.pad) / load, (tile.columns + tile.pad) / wideB];
  const [sizeA, sizeB] = [areaA(tile, taps) / load, areaB(tile, taps) / wideB];
  const strip = (size: number) => (strips(tile) === 2 ? ` + half * ${size}u` : '');

  // Offsets and strides count elements of the array, which are vectors of f16 values.
  const loadA = (i: number, k: number): string =>
    `subgroupMatrixLoad<${left}, col_major>(&tileA, fromA + ${k * pitchA + (i * unit.M) / load}u${strip(sizeA)}, ${pitchA}u)`;
  const loadB = (j: number, k: number): string =>
    `subgroupMatrixLoad<${right}, row_major>(&tileB, fromB + ${k * pitchB + (j * unit.N) / wideB}u${strip(sizeB)}, ${pitchB}u)`;
  const multiply = unroll(
    (taps * tile.depth) / unit.K,
    (s) => /* wgsl */ `{
      ${unroll(down, (i) => `let a${i} = ${loadA(i, s * unit.K)};`)}
      ${unroll(
        across,
        (j) => `{ let b0 = ${loadB(j, s * unit.K)};
      ${unroll(down, (i) => `sum${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b0, sum${i}_${j});`)} }`,
      )}
    }`,
  );

  // Each subgroup writes a strip of `count` result matrices to workgroup memory, and its lanes read rows of four.
  const count = scratchMatrices(tile);
  const wide = count * unit.N;
  const vectors = (unit.M * wide) / 4;
  const finish = unroll(down, (i) =>
    unroll(
      across / count,
      (j) => /* wgsl */ `
  ${unroll(count, (c) => `subgroupMatrixStore<row_major>(&scratch, slot + ${c * unit.N}u, sum${i}_${j * count + c}, ${wide}u);`)}
  workgroupBarrier();
  for (var v = lane; v < ${vectors}u; v += ${lanes}u) {
    let r = v / ${wide / 4}u;
    let c = v % ${wide / 4}u * 4u;
    let at = slot + r * ${wide}u + c;
    storeSums(first, row + ${i * unit.M}u + r, column + ${j * wide}u + c,
      vec4f(scratch[at], scratch[at + 1u], scratch[at + 2u], scratch[at + 3u]));
  }
  workgroupBarrier();`,
    ),
  );
  return /* wgsl */ `
var<workgroup> tileA: array<${HALVES[load]}, ${sizeA * strips(tile)}>;
var<workgroup> tileB: array<${HALVES[wideB]}, ${sizeB * strips(tile)}>;
var<workgroup> scratch: array<f32, ${subgroups(tile) * unit.M * wide}>;
${declarations}
@compute @workgroup_size(${lanes * subgroups(tile)})
fn main(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  ${place}
  let lane = index % ${lanes}u;
  let subgroup = subgroupBroadcastFirst(index / ${lanes}u);
  let partRow = subgroup / ${tile.subgroupColumns}u * ${partRows}u;
  let partColumn = subgroup % ${tile.subgroupColumns}u * ${partColumns}u;
  let row = firstRow + partRow;
  let column = firstColumn + partColumn;
  let slot = subgroup * ${unit.M * wide}u;
  ${unroll(down, (i) => unroll(across, (j) => `var sum${i}_${j}: ${result};`))}
  let fromA = partRow / ${load}u;
  let fromB = partColumn / ${wideB}u;
  ${staging.before}
  ${loopOf(staging, tile.pipeline, multiply)}
  ${finish}
}
`;
}

/** Where the strips of a lie in storage. */
interface RowsOfA {
  readonly type: WeightDtype;
  /** WGSL of the first vector of the matrix. */
  readonly first: string;
  /** Returns WGSL of the row in storage that line `line` of the strip comes from, and whether there is one. */
  readonly row: (line: string) => { readonly at: string; readonly exists: string };
}

/**
 * Returns WGSL that stages a strip of a: `taps * tile.depth` rows from storage, whose vectors hold four elements and
 * whose rows are `u.aPitch` vectors apart. Lines without a row become zeros. Columns after the last, `u.m`, repeat it.
 */
export function stageA(
  tile: MatrixTile,
  lanes: number,
  taps: number,
  { type, first, row }: RowsOfA,
): Staging {
  const { load, rows, depth } = tile;
  const threads = lanes * subgroups(tile);
  const wide = rows / load;
  const total = taps * depth * wide;
  const perLoad = load / 4;
  const vector = type === 'f16' ? 'vec2u' : 'vec4f';
  const place = (s: number): string => /* wgsl */ `
  let lineA${s} = (index + ${s * threads}u) / ${wide}u;
  let placeA${s} = (index + ${s * threads}u) % ${wide}u;
  let toA${s} = lineA${s} * ${(rows + tile.pad) / load}u + placeA${s};
  ${unroll(
    perLoad,
    (v) => `let fromA${s}_${v} = ${first} + min(firstRow / 4u + placeA${s} * ${perLoad}u + ${v}u, (u.m - 1u) / 4u);
  var nextA${s}_${v}: ${vector};`,
  )}`;
  return {
    before: unroll(Math.ceil(total / threads), place),
    // These are branches because a select would wait for the load here, in the middle of the prefetch.
    fetch: rounds(total, threads, (s) => {
      const { at, exists } = row(`lineA${s}`);
      return /* wgsl */ `if (${exists}) {
      let at = (${at}) * u.aPitch;
      ${unroll(perLoad, (v) => `nextA${s}_${v} = a[fromA${s}_${v} + at];`)}
    } else { ${unroll(perLoad, (v) => `nextA${s}_${v} = ${vector}();`)} }`;
    }),
    store: (half) =>
      rounds(
        total,
        threads,
        (s) =>
          `tileA[${stripStart(half, areaA(tile, taps) / load)}toA${s}] = ${packed(type, load, (v) => `nextA${s}_${v}`)};`,
      ),
  };
}
