// GEMM on matrix units (Dawn's `chromium_experimental_subgroup_matrix`): f16 factors, f32 sums.
//
// A unit multiplies an M x K by a K x N matrix per subgroup and instruction. A workgroup computes a tile of
// `rows` x `columns`; its subgroups share the tile in a grid, and each holds its part in result matrices. The
// tile is plain data, so that a search can compare tiles and a table can ship the best ones.
//
// Versions on an H200 (bench/results/nvidia-h200-tiles.json), in TFLOP/s, units of 16x16x16 unless said
// otherwise; the units alone reach 641:
// - 4096 x 4096 x 4096: 214 for the best tile with Dawn's bounds checks; 275 without them (16x8x16, 128 x 256
//   x 32 in 2 x 4 subgroups, next strip in registers).
// - Layers of a UNet (`m` x `n` x `k`): 50.5 for 320 x 4096 x 320 and 68.7 for 1280 x 1024 x 1280, both with
//   tiles of 160 x 64 x 32; 44.1 for 320 x 65536 x 320.
// - 3x3 convolutions of conv2d-matrix.ts: 185 for 320 channels at 64x64, 198 for 1280 at 16x16 (both n
//   = 16, tiles of 160 x 128 x 16 in 5 x 2 subgroups, next strip in registers), 54 for stride 2.
//
// WGSL names a matrix type by its columns first: left<f16, K, M>, right<f16, N, K>, result<f32, N, M>.

import { ShapeError } from '../../src/errors.ts';
import {
  type Binding,
  defineKernel,
  type Kernel,
  read,
  type Uniform,
  u32,
  write,
} from '../../src/kernels/device/kernel.ts';
import type { WeightDtype } from '../../src/kernels/device/routine.ts';
import { unroll } from '../../src/kernels/gemm/gemm-spec.ts';

/** Rows, columns and depth of one product of the matrix unit, as in `adapter.info.subgroupMatrixConfigs`. */
export interface MatrixUnit {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** How a workgroup computes its part of a product on matrix units. */
export interface MatrixTile {
  readonly unit: MatrixUnit;
  /** Rows and columns of the result that one workgroup computes. */
  readonly rows: number;
  readonly columns: number;
  /** Rows of a and b that are staged at a time (of a convolution: channels, each with three taps). */
  readonly depth: number;
  /** The grid of subgroups over the tile; each computes rows / subgroupRows by columns / subgroupColumns. */
  readonly subgroupRows: number;
  readonly subgroupColumns: number;
  /** Whether units load from a copy in workgroup memory or straight from storage. */
  readonly stage: 'workgroup' | 'direct';
  /** f16 values that one invocation loads at a time; also the width of workgroup memory's elements. */
  readonly load: 2 | 4 | 8;
  /**
   * none: load, barrier, multiply, barrier. registers: the next strip is loaded into registers while the
   * current one is multiplied. double: as registers, with two strips in workgroup memory and one barrier per
   * strip.
   */
  readonly pipeline: 'none' | 'registers' | 'double';
  /** f16 values between staged rows, so that units read from different banks; a multiple of 8. */
  readonly pad: number;
  /** The layout of factor a in storage: [K][M] or [M][K]. */
  readonly a: 'k-major' | 'm-major';
}

/**
 * c[m][n] = bias[m] + Σ_k a[k][m] · b[k][n], where a is f16 and b is f16 or f32. The caller pads the storage
 * so that the dimensions are multiples of the tile's (k of its depth). Pitches are in elements and multiples
 * of 8.
 */
export interface MatrixGemm {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly aPitch: number;
  readonly bPitch: number;
  readonly cPitch: number;
  /** How b is stored; f32 values are rounded to f16 when they are staged. */
  readonly bType?: WeightDtype;
  readonly out: WeightDtype;
  /** Binds `bias` [m], f32. */
  readonly bias?: boolean;
}

/** Returns the bytes of workgroup memory that a tile needs; a convolution stages three taps at a time. */
export const tileBytes = (tile: MatrixTile, out: MatrixOut, taps = 1): number =>
  (tile.stage === 'direct' ? 0 : 2 * halves(tile) * (areaA(tile, taps) + areaB(tile, taps))) +
  (storesDirectly(out) ? 0 : 4 * subgroups(tile) * tile.unit.M * tile.unit.N);

/** What follows the sums: the type of the result and whether a bias is added. */
export type MatrixOut = Pick<MatrixGemm, 'out' | 'bias'>;

/**
 * Returns whether the units store f32 sums directly. Any epilogue makes the sums pass through workgroup
 * memory.
 */
const storesDirectly = ({ out, bias }: MatrixOut): boolean => out === 'f32' && !bias;

const halves = ({ pipeline }: MatrixTile): number => (pipeline === 'double' ? 2 : 1);
export const subgroups = (tile: MatrixTile): number => tile.subgroupRows * tile.subgroupColumns;

/** f16 values of a staged row of a, and of one strip of a and of b with all its taps. */
const pitchA = ({ a, rows, depth, pad }: MatrixTile): number => (a === 'k-major' ? rows : depth) + pad;
const areaA = (tile: MatrixTile, taps: number): number =>
  pitchA(tile) * (tile.a === 'k-major' ? taps * tile.depth : tile.rows);
const areaB = ({ columns, depth, pad }: MatrixTile, taps: number): number => taps * depth * (columns + pad);

/** The type that holds a vector of f16 values in storage and in workgroup memory. */
export const HALVES = { 2: 'u32', 4: 'vec2u', 8: 'vec4u' } as const;

/**
 * Returns why a tile is impossible on a device with `lanes` per subgroup and `bytes` of workgroup memory, or
 * undefined if it is possible.
 */
export function tileFault(
  tile: MatrixTile,
  device: { readonly lanes: number; readonly bytes: number; readonly invocations: number },
  out: MatrixOut,
  taps = 1,
): string | undefined {
  const { unit, rows, columns, depth, load, pad, stage } = tile;
  if (rows % (tile.subgroupRows * unit.M) !== 0) return 'rows are not a multiple of the subgroups and unit';
  if (columns % (tile.subgroupColumns * unit.N) !== 0)
    return 'columns are not a multiple of the subgroups and unit';
  if (depth % unit.K !== 0) return 'the depth is not a multiple of the unit';
  if (pad % 8 !== 0 || rows % load !== 0 || columns % load !== 0) return 'rows are not whole loads';
  if (taps > 1 && (stage === 'direct' || tile.a === 'm-major')) return 'a convolution is staged, k-major';
  const threads = device.lanes * subgroups(tile);
  if (threads > device.invocations) return `${threads} invocations, the device allows ${device.invocations}`;
  const bytes = tileBytes(tile, out, taps);
  if (bytes > device.bytes) return `${bytes} bytes of workgroup memory, the device has ${device.bytes}`;
  return undefined;
}

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

/** Returns the binding of the result: f32 if the units store directly, else vectors of four. */
export const resultBinding = (out: MatrixOut): Binding =>
  write('c', storesDirectly(out) ? 'f32' : out.out === 'f32' ? 'vec4f' : 'vec2u');

/** The extensions and the compiler rule that every kernel on matrix units needs. */
export const MATRIX_MODULE = {
  enable: ['f16', 'subgroups', 'chromium_experimental_subgroup_matrix'],
  // The rule cannot see that the index of a subgroup is the same in all its lanes.
  unchecked: ['chromium.subgroup_matrix_uniformity'],
} as const;

/** Returns a short name of a tile for labels and tables. */
export const tileName = (t: MatrixTile): string =>
  [
    `${t.unit.M}x${t.unit.N}x${t.unit.K}`,
    `${t.rows}x${t.columns}x${t.depth}`,
    `${t.subgroupRows}x${t.subgroupColumns}`,
    t.stage === 'direct' ? 'direct' : t.pipeline,
    `load${t.load}`,
    `pad${t.pad}`,
    ...(t.a === 'm-major' ? ['mk'] : []),
  ].join('.');

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

/**
 * Returns a kernel for `MatrixGemm`. Its operands are `a b [bias] c`. @throws ShapeError if the tile does not
 * fit.
 */
export function gemmMatrix(tile: MatrixTile, lanes: number, spec: MatrixGemm): Kernel {
  const { load, depth, columns } = tile;
  for (const [name, value, part] of [
    ['m', spec.m, tile.rows],
    ['n', spec.n, columns],
    ['k', spec.k, depth],
    ['aPitch', spec.aPitch, 8],
    ['bPitch', spec.bPitch, 8],
    ['cPitch', spec.cPitch, 8],
  ] as const)
    if (value % part !== 0 || value <= 0)
      throw new ShapeError(`gemm: expected ${name} to be a multiple of ${part}, got ${value}`);
  const { bType = 'f16' } = spec;
  if (bType === 'f32' && tile.stage === 'direct')
    throw new ShapeError(
      'gemm: expected a staged tile for b in f32, got a direct one: units load only f16 from storage',
    );
  const threads = lanes * subgroups(tile);
  const a = stageA(tile, lanes, 1);
  const wide = columns / load;
  const total = depth * wide;
  const areaOfB = areaB(tile, 1) / load;
  // A vector of b in storage holds `perLoad` elements; `loads` of them become one vector of workgroup memory.
  const perLoad = bType === 'f16' ? load : Math.min(load, 4);
  const loads = load / perLoad;
  const vectorB = bType === 'f16' ? HALVES[load] : perLoad === 4 ? 'vec4f' : 'vec2f';
  const staged = (s: number): string => {
    if (bType === 'f16') return `nextB${s}_0`;
    const words = Array.from({ length: load / 2 }, (_, i) => {
      const name = `nextB${s}_${Math.floor((2 * i) / perLoad)}`;
      return `pack2x16float(${perLoad === 2 ? name : `${name}.${i % 2 === 0 ? 'xy' : 'zw'}`})`;
    });
    return load === 2 ? words[0]! : `${HALVES[load]}(${words.join(', ')})`;
  };
  const placeB = (s: number): string => {
    const [line, at] = [`(index + ${s * threads}u) / ${wide}u`, `(index + ${s * threads}u) % ${wide}u`];
    return `let fromB${s} = ${line} * u.bPitch + firstColumn / ${perLoad}u + ${at} * ${loads}u;
  let toB${s} = ${line} * ${(columns + tile.pad) / load}u + ${at};
  ${unroll(loads, (v) => `var nextB${s}_${v}: ${vectorB};`)}`;
  };
  const staging: Staging = {
    before: `${a.before}
  var stripB = 0u;
  ${unroll(Math.ceil(total / threads), placeB)}`,
    fetch: `${a.fetch}
    ${turns(total, threads, (s) => unroll(loads, (v) => `nextB${s}_${v} = b[stripB + fromB${s} + ${v}u];`))}
    stripA += ${tile.a === 'k-major' ? `${depth}u * u.aPitch` : `${depth / load}u`};
    stripB += ${depth}u * u.bPitch;`,
    store: (half) => `${a.store(half)}
    ${turns(total, threads, (s) => `tileB[${half === '0u' ? '' : `${half} * ${areaOfB}u + `}toB${s}] = ${staged(s)};`)}`,
  };
  const uniforms: Uniform[] = [
    u32('steps', spec.k / depth),
    u32('aPitch', spec.aPitch / load),
    u32('bPitch', spec.bPitch / perLoad),
    u32('cPitch', spec.cPitch),
  ];
  return defineKernel({
    name: `gemm.matrix.${tileName(tile)}.${bType}.${spec.out}${spec.bias ? '.bias' : ''}`,
    ...MATRIX_MODULE,
    bindings: [
      read('a', HALVES[load]),
      read('b', vectorB),
      ...(spec.bias ? [read('bias', 'f32')] : []),
      resultBinding(spec),
    ],
    uniforms,
    body: matrixBody({
      tile,
      lanes,
      staging,
      taps: 1,
      guarded: false,
      out: spec.out,
      bias: spec.bias ?? false,
    }),
    grid: [spec.m / tile.rows, spec.n / columns, 1],
  });
}
