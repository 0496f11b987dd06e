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

/** WGSL that stages the vectors of a strip in workgroup memory. `id` tells the vectors of an invocation apart. */
export interface StagedVectors {
  /** Vectors of a strip. */
  readonly total: number;
  /** Declares what stays the same from strip to strip, and registers; `index` is WGSL of the vector's index. */
  readonly place: (id: string, index: string) => string;
  /** Loads the vector from storage into its registers. */
  readonly fetch: (id: string) => string;
  /** Writes the registers to workgroup memory; `half` is 0 or the name of the u32 that counts strips there. */
  readonly store: (id: string, half: string) => string;
}

/** How both factors are staged. */
export interface Staging {
  readonly a: StagedVectors;
  readonly b: StagedVectors;
  /** WGSL of variables that say where the next strip begins, and of their step to the strip after it. */
  readonly start: string;
  readonly advance: string;
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

/** Returns WGSL of the loop over the strips. */
function loopOf(
  { a, b, start, advance }: Staging,
  pipeline: MatrixTile['pipeline'],
  threads: number,
  multiply: string,
): string {
  const both = (line: (staged: StagedVectors, s: number) => string) =>
    [a, b].map((staged) => rounds(staged.total, threads, (s) => line(staged, s))).join('\n    ');
  const places = [a, b].map(({ total, place }) =>
    unroll(Math.ceil(total / threads), (s) => place(`${s}`, `(index + ${s * threads}u)`)),
  );
  const fetch = `${both((staged, s) => staged.fetch(`${s}`))}
    ${advance}`;
  const store = (half: string) => both((staged, s) => staged.store(`${s}`, half));
  switch (pipeline) {
    // Nothing stays in registers, so a loop over the vectors keeps the text short.
    case 'none':
      return /* wgsl */ `
  ${start}
  for (var step = 0u; step < u.steps; step++) {
    ${[a, b]
      .map(
        ({
          total,
          place,
          fetch,
          store,
        }) => /* wgsl */ `for (var item = index; item < ${total}u; item += ${threads}u) {
      ${place('', 'item')}
      ${fetch('')}
      ${store('', '0u')}
    }`,
      )
      .join('\n    ')}
    ${advance}
    workgroupBarrier();
    ${multiply}
    workgroupBarrier();
  }`;
    case 'registers':
      return /* wgsl */ `
  ${start}
  ${places.join('\n  ')}
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
  ${start}
  ${places.join('\n  ')}
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
}

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
  const [stepA, stepB] = [unit.K * pitchA, unit.K * pitchB];
  const loadA = (i: number, s: string): string =>
    `subgroupMatrixLoad<${left}, col_major>(&tileA, fromA + ${s} * ${stepA}u + ${(i * unit.M) / load}u${strip(sizeA)}, ${pitchA}u)`;
  const loadB = (j: number, s: string): string =>
    `subgroupMatrixLoad<${right}, row_major>(&tileB, fromB + ${s} * ${stepB}u + ${(j * unit.N) / wideB}u${strip(sizeB)}, ${pitchB}u)`;
  const product = (s: string): string => /* wgsl */ `{
      ${unroll(down, (i) => `let a${i} = ${loadA(i, s)};`)}
      ${unroll(
        across,
        (j) => `{ let b0 = ${loadB(j, s)};
      ${unroll(down, (i) => `sum${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b0, sum${i}_${j});`)} }`,
      )}
    }`;
  const products = (taps * tile.depth) / unit.K;
  const multiply =
    tile.pipeline === 'none'
      ? `for (var s = 0u; s < ${products}u; s++) ${product('s')}`
      : unroll(products, (s) => product(`${s}u`));

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
  ${loopOf(staging, tile.pipeline, lanes * subgroups(tile), multiply)}
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
export function stageA(tile: MatrixTile, taps: number, { type, first, row }: RowsOfA): StagedVectors {
  const { load, rows, depth } = tile;
  const wide = rows / load;
  const perLoad = load / 4;
  const vector = type === 'f16' ? 'vec2u' : 'vec4f';
  return {
    total: taps * depth * wide,
    place: (id, index) => /* wgsl */ `
  let lineA${id} = ${index} / ${wide}u;
  let placeA${id} = ${index} % ${wide}u;
  let toA${id} = lineA${id} * ${(rows + tile.pad) / load}u + placeA${id};
  ${unroll(
    perLoad,
    (
      v,
    ) => `let fromA${id}_${v} = ${first} + min(firstRow / 4u + placeA${id} * ${perLoad}u + ${v}u, (u.m - 1u) / 4u);
  var nextA${id}_${v}: ${vector};`,
  )}`,
    // These are branches because a select would wait for the load here, in the middle of the prefetch.
    fetch(id) {
      const { at, exists } = row(`lineA${id}`);
      return /* wgsl */ `if (${exists}) {
      let at = (${at}) * u.aPitch;
      ${unroll(perLoad, (v) => `nextA${id}_${v} = a[fromA${id}_${v} + at];`)}
    } else { ${unroll(perLoad, (v) => `nextA${id}_${v} = ${vector}();`)} }`;
    },
    store: (id, half) =>
      `tileA[${stripStart(half, areaA(tile, taps) / load)}toA${id}] = ${packed(type, load, (v) => `nextA${id}_${v}`)};`,
  };
}
