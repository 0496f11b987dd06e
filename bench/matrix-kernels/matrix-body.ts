// WGSL that the GEMM and the convolution on matrix units share: staging of factor a, the loop over k, and the epilogue.
//
// WGSL names a matrix type by its columns first: left<f16, K, M>, right<f16, N, K>, result<f32, N, M>.

import { type Binding, write } from '../../src/kernels/device/kernel.ts';
import { unroll } from '../../src/kernels/gemm/gemm-spec.ts';
import {
  areaA,
  areaB,
  HALVES,
  halves,
  type MatrixOut,
  type MatrixTile,
  pitchA,
  storesDirectly,
  subgroups,
} from './matrix-tile.ts';

/** The extensions and the compiler rule that every kernel on matrix units needs. */
export const MATRIX_MODULE = {
  enable: ['f16', 'subgroups', 'chromium_experimental_subgroup_matrix'],
  // The rule cannot see that the index of a subgroup is the same in all its lanes.
  unchecked: ['chromium.subgroup_matrix_uniformity'],
} as const;

/** Returns the binding of the result: f32 if the units store directly, else vectors of four. */
export const resultBinding = (out: MatrixOut): Binding =>
  write('c', storesDirectly(out) ? 'f32' : out.out === 'f32' ? 'vec4f' : 'vec2u');

/** WGSL that stages the strips of a and b in workgroup memory. */
export interface Staging {
  /** Declarations before the loop: registers and offsets. */
  readonly before: string;
  /** Loads the next strip into registers and advances the offsets. */
  readonly fetch: string;
  /** Writes the registers to a half of `tileA` and `tileB`; `half` is 0 or the name of a u32. */
  readonly store: (half: string) => string;
}

/**
 * Returns WGSL in which `threads` invocations process `total` vectors: `line(s)` for each round s, guarded if
 * the round is partial.
 */
export const turns = (total: number, threads: number, line: (s: number) => string): string =>
  unroll(Math.ceil(total / threads), (s) =>
    (s + 1) * threads <= total ? `{ ${line(s)} }` : `if (index + ${s * threads}u < ${total}u) { ${line(s)} }`,
  );

export interface MatrixBody extends MatrixOut {
  readonly tile: MatrixTile;
  readonly lanes: number;
  readonly staging: Staging;
  /** A staged strip has this many times `tile.depth` rows. */
  readonly taps: number;
  /** Functions and other declarations of the module. */
  readonly declarations?: string;
  /** Whether results beyond u.m and u.n (multiples of the unit's sizes) must not be stored. */
  readonly guarded: boolean;
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
export function matrixBody(body: MatrixBody): string {
  const { tile, lanes, staging, taps, guarded, declarations = '' } = body;
  const { unit, load, stage } = tile;
  const direct = stage === 'direct';
  const partRows = tile.rows / tile.subgroupRows;
  const partColumns = tile.columns / tile.subgroupColumns;
  const [down, across] = [partRows / unit.M, partColumns / unit.N];
  const threads = lanes * subgroups(tile);
  const left = `subgroup_matrix_left<f16, ${unit.K}, ${unit.M}>`;
  const right = `subgroup_matrix_right<f16, ${unit.N}, ${unit.K}>`;
  const result = `subgroup_matrix_result<f32, ${unit.N}, ${unit.M}>`;
  const vectors = (count: number): number => count / load;
  const kMajor = tile.a === 'k-major';
  const [bytesA, bytesB] = [vectors(areaA(tile, taps)), vectors(areaB(tile, taps))];
  const half = tile.pipeline === 'double' && !direct;

  // Offsets and strides count elements of the array, which are vectors of `load` f16 values.
  const loadA = (i: number, k: number): string => {
    if (direct) {
      const at = kMajor
        ? `(k + ${k}u) * u.aPitch + (row + ${i * unit.M}u) / ${load}u`
        : `(row + ${i * unit.M}u) * u.aPitch + (k + ${k}u) / ${load}u`;
      return `subgroupMatrixLoad<${left}, ${kMajor ? 'col_major' : 'row_major'}>(&a, ${at}, u.aPitch)`;
    }
    const at = kMajor
      ? `fromA + ${vectors(k * pitchA(tile) + i * unit.M)}u`
      : `fromA + ${vectors(i * unit.M * pitchA(tile) + k)}u`;
    return `subgroupMatrixLoad<${left}, ${kMajor ? 'col_major' : 'row_major'}>(&tileA, ${at}${half ? ` + half * ${bytesA}u` : ''}, ${vectors(pitchA(tile))}u)`;
  };
  const loadB = (j: number, k: number): string =>
    direct
      ? `subgroupMatrixLoad<${right}, row_major>(&b, (k + ${k}u) * u.bPitch + (column + ${j * unit.N}u) / ${load}u, u.bPitch)`
      : `subgroupMatrixLoad<${right}, row_major>(&tileB, fromB + ${vectors(k * (tile.columns + tile.pad) + j * unit.N)}u${half ? ` + half * ${bytesB}u` : ''}, ${vectors(tile.columns + tile.pad)}u)`;
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
  const loop = direct
    ? `for (var k = 0u; k < u.steps * ${tile.depth}u; k += ${tile.depth}u) { ${multiply} }`
    : loopOf(staging, tile.pipeline, multiply);

  const inside = (i: number, j: number): string =>
    guarded ? `if (row + ${i * unit.M}u < u.m && column + ${j * unit.N}u < u.n) ` : '';
  const area = unit.M * unit.N;
  // Elements of a result matrix per lane in the epilogue: at least four, consecutive in a row.
  const each = Math.max(4, area / lanes);
  const plain = storesDirectly(body);
  const finish = unroll(down, (i) =>
    unroll(across, (j) =>
      plain
        ? `${inside(i, j)}{ subgroupMatrixStore<row_major>(&c, (row + ${i * unit.M}u) * u.cPitch + column + ${j * unit.N}u, sum${i}_${j}, u.cPitch); }`
        : /* wgsl */ `
  subgroupMatrixStore<row_major>(&scratch, subgroup * ${area}u, sum${i}_${j}, ${unit.N}u);
  workgroupBarrier();
  ${inside(i, j)}{ finish(subgroup * ${area}u, lane * ${each}u, row + ${i * unit.M}u, column + ${j * unit.N}u); }
  workgroupBarrier();`,
    ),
  );
  const vector = (v: number) =>
    `vec4f(scratch[first + ${4 * v}u], scratch[first + ${4 * v + 1}u], scratch[first + ${4 * v + 2}u], scratch[first + ${4 * v + 3}u])${body.bias ? ' + bias[row + r]' : ''}`;
  const epilogue = plain
    ? ''
    : /* wgsl */ `
var<workgroup> scratch: array<f32, ${subgroups(tile) * area}>;
fn finish(matrix: u32, at: u32, row: u32, column: u32) {
  if (at >= ${area}u) { return; }
  let r = at / ${unit.N}u;
  let first = matrix + at;
  let to = ((row + r) * u.cPitch + column + at % ${unit.N}u) / 4u;
  ${unroll(each / 4, (v) =>
    body.out === 'f32'
      ? `c[to + ${v}u] = ${vector(v)};`
      : `{ let v = ${vector(v)}; c[to + ${v}u] = vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }`,
  )}
}`;
  return /* wgsl */ `
${
  direct
    ? ''
    : `var<workgroup> tileA: array<${HALVES[load]}, ${bytesA * halves(tile)}>;
var<workgroup> tileB: array<${HALVES[load]}, ${bytesB * halves(tile)}>;`
}
${declarations}
${epilogue}
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3u) {
  let lane = index % ${lanes}u;
  let subgroup = subgroupBroadcastFirst(index / ${lanes}u);
  let partRow = subgroup / ${tile.subgroupColumns}u * ${partRows}u;
  let partColumn = subgroup % ${tile.subgroupColumns}u * ${partColumns}u;
  let firstRow = group.x * ${tile.rows}u;
  let firstColumn = group.y * ${tile.columns}u;
  let row = firstRow + partRow;
  let column = firstColumn + partColumn;
  ${unroll(down, (i) => unroll(across, (j) => `var sum${i}_${j}: ${result};`))}
  ${
    direct
      ? ''
      : `let fromA = ${kMajor ? `partRow / ${load}u` : `partRow * ${vectors(pitchA(tile))}u`};
  let fromB = partColumn / ${load}u;
  ${staging.before}`
  }
  ${loop}
  ${finish}
}
`;
}

/**
 * Returns WGSL that stages a strip of a: `taps` slabs of `tile.depth` rows, `u.aTap` vectors apart. The
 * caller advances `stripA`.
 */
export function stageA(tile: MatrixTile, lanes: number, taps: number): Staging {
  const { load, rows, depth } = tile;
  const threads = lanes * subgroups(tile);
  const kMajor = tile.a === 'k-major';
  const wide = (kMajor ? rows : depth) / load;
  const total = (kMajor ? taps * depth : rows) * wide;
  const place = (s: number): string => {
    const item = `(index + ${s * threads}u)`;
    const [line, at] = [`${item} / ${wide}u`, `${item} % ${wide}u`];
    const from = !kMajor
      ? `(firstRow + ${line}) * u.aPitch + ${at}`
      : taps === 1
        ? `(${line}) * u.aPitch + firstRow / ${load}u + ${at}`
        : `(${line}) / ${depth}u * u.aTap + (${line}) % ${depth}u * u.aPitch + firstRow / ${load}u + ${at}`;
    return `let fromA${s} = ${from};
  let toA${s} = ${line} * ${pitchA(tile) / load}u + ${at};
  var nextA${s}: ${HALVES[load]};`;
  };
  const area = areaA(tile, taps) / load;
  return {
    before: `var stripA = 0u;
  ${unroll(Math.ceil(total / threads), place)}`,
    fetch: turns(total, threads, (s) => `nextA${s} = a[stripA + fromA${s}];`),
    store: (half) =>
      turns(
        total,
        threads,
        (s) => `tileA[${half === '0u' ? '' : `${half} * ${area}u + `}toA${s}] = nextA${s};`,
      ),
  };
}
