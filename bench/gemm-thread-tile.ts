// GEMM with tiles in workgroup memory and registers, for GPUs without matrix units. It is the kernel of
// gemm-tile.ts with every size as data, so that a search can find the best one. Factors are stored in f32 or
// f16; sums are f32.
//
// Versions on an H200 (bench/results/nvidia-h200-tiles.json), in TFLOP/s:
// - f32 throughout, 128 x 128 x 16 with 8 x 16 results per invocation: 37.8 for 320 x 65536 x 320, where
//   gemm-tile.ts reaches 34.7.
// - f32 throughout, 128 x 64 x 16 with 8 x 8: 35.6 for 1024 x 1024 x 1024 and 44.4 for 1280 x 4096 x 1280.
// - Factors stored, staged and multiplied as f16, 64 x 128 x 32 with 8 x 8 in two buffers: 41.8, 48.8 and
//   48.2 for these three shapes; 50.5 for 4096 x 4096 x 4096, and 54.7 without Dawn's bounds checks.

import { ShapeError } from '../src/errors.ts';
import { defineKernel, type Kernel, read, u32, write } from '../src/kernels/device/kernel.ts';
import type { WeightDtype } from '../src/kernels/device/routine.ts';
import { unroll } from '../src/kernels/gemm/gemm-spec.ts';
import { rounds } from '../src/kernels/gemm/matrix-body.ts';

/** How a workgroup computes its part of a product with the invocations' own registers. */
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
  /** How factors are stored, how they are staged, and how they are multiplied. */
  readonly stored: WeightDtype;
  readonly staged: WeightDtype;
  /** f16: products of one strip are summed in f16, then added to the f32 sum. */
  readonly products: WeightDtype;
  /** Elements that one load returns; 8 for f16 only. */
  readonly load: 4 | 8;
  /** Whether the loop over a strip is unrolled. */
  readonly unrolled: boolean;
}

/**
 * c[m][n] = Σ_k a[k][m] · b[k][n] for dimensions that are multiples of the tile's; pitches are the
 * dimensions.
 */
export interface ThreadGemm {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

const invocations = ({ rows, columns, threadRows, threadColumns }: ThreadTile): number =>
  (rows / threadRows) * (columns / threadColumns);

/** Returns why a tile is impossible on a device, or undefined if it is possible. */
export function threadTileFault(
  tile: ThreadTile,
  device: { readonly bytes: number; readonly invocations: number; readonly f16: boolean },
): string | undefined {
  const { rows, columns, depth, threadRows, threadColumns, stored, staged, products, load } = tile;
  if (rows % threadRows !== 0 || columns % threadColumns !== 0)
    return 'rows and columns are not multiples of those of an invocation';
  if (stored === 'f32' && (staged === 'f16' || load === 8)) return 'f32 factors are staged as f32 in fours';
  if (products === 'f16' && staged === 'f32') return 'f16 products need f16 factors';
  if (rows % load !== 0 || columns % load !== 0) return 'rows are not whole loads';
  if (staged === 'f16' && !device.f16) return 'the device has no f16';
  const count = invocations(tile);
  if (count > device.invocations || count < 32)
    return `${count} invocations, allowed are 32 to ${device.invocations}`;
  const bytes = tile.buffers * depth * (rows + columns) * (staged === 'f16' ? 2 : 4);
  if (bytes > device.bytes) return `${bytes} bytes of workgroup memory, the device has ${device.bytes}`;
  return undefined;
}

/** Returns a short name of a tile for labels and tables. */
export const threadTileName = (t: ThreadTile): string =>
  [
    `${t.rows}x${t.columns}x${t.depth}`,
    `${t.threadRows}x${t.threadColumns}`,
    `${t.buffers}buf`,
    `${t.stored}-${t.staged}-${t.products}`,
    `load${t.load}`,
    ...(t.unrolled ? ['unrolled'] : []),
  ].join('.');

/**
 * Returns a kernel for `ThreadGemm`. Its operands are `a b c`. @throws ShapeError if the tile does not fit.
 */
export function gemmThreadTile(tile: ThreadTile, { m, n, k }: ThreadGemm): Kernel {
  const { rows, columns, depth, threadRows, threadColumns, buffers, stored, staged, products, load } = tile;
  for (const [name, value, part] of [
    ['m', m, rows],
    ['n', n, columns],
    ['k', k, depth],
  ] as const)
    if (value % part !== 0)
      throw new ShapeError(`gemm: expected ${name} to be a multiple of ${part}, got ${value}`);
  const threads = invocations(tile);
  const [across, down] = [columns / threadColumns, rows / threadRows];
  const [rowVecs, colVecs] = [rows / 4, columns / 4];
  const element = staged === 'f16' ? 'vec4<f16>' : 'vec4f';
  const raw = stored === 'f32' ? 'vec4f' : load === 8 ? 'vec4u' : 'vec2u';
  const pieces = load / 4;
  const convert = (name: string, piece: number): string => {
    if (stored === 'f32') return name;
    const words = load === 8 ? (piece === 0 ? `${name}.xy` : `${name}.zw`) : name;
    return staged === 'f16'
      ? `bitcast<vec4<f16>>(${words})`
      : `vec4f(unpack2x16float(${words}.x), unpack2x16float(${words}.y))`;
  };
  const factor = (name: 'A' | 'B', wide: number) => {
    const perRow = wide / load;
    const total = depth * perRow;
    const count = Math.ceil(total / threads);
    const from = name === 'A' ? `group.x * ${perRow}u` : `group.y * ${perRow}u`;
    return {
      before: unroll(
        count,
        (
          s,
        ) => `let from${name}${s} = (index + ${s * threads}u) / ${perRow}u * u.pitch${name} + ${from} + (index + ${s * threads}u) % ${perRow}u;
  var next${name}${s}: ${raw};`,
      ),
      fetch: `${rounds(total, threads, (s) => `next${name}${s} = ${name.toLowerCase()}[strip${name} + from${name}${s}];`)}
    strip${name} += ${depth}u * u.pitch${name};`,
      store: (half: string) =>
        rounds(total, threads, (s) =>
          unroll(
            pieces,
            (p) =>
              `tile${name}[${half}${depth * (wide / 4)}u + (index + ${s * threads}u) * ${pieces}u + ${p}u] = ${convert(`next${name}${s}`, p)};`,
          ),
        ),
    };
  };
  const [a, b] = [factor('A', rows), factor('B', columns)];
  const fetch = `${a.fetch}\n    ${b.fetch}`;
  const store = (half: string) => `${a.store(half)}\n    ${b.store(half)}`;
  const half = buffers === 2 ? 'half * ' : '0u * ';
  const [aVecs, bVecs] = [threadRows / 4, threadColumns / 4];
  const each = (line: (i: number, j: number) => string): string =>
    unroll(threadRows, (i) => unroll(bVecs, (j) => line(i, j)));
  const mixed = staged === 'f16' && products === 'f32';
  const value = (loaded: string) => (mixed ? `vec4f(${loaded})` : loaded);
  const sum = products === 'f16' ? 'part' : 'sum';
  const type = products === 'f16' ? 'vec4<f16>' : 'vec4f';
  const one = (s: string): string => /* wgsl */ `{
      ${unroll(aVecs, (i) => `let a${i} = ${value(`tileA[${half}${depth * rowVecs}u + ${s} * ${rowVecs}u + y + ${i * down}u]`)};`)}
      ${unroll(bVecs, (j) => `let b${j} = ${value(`tileB[${half}${depth * colVecs}u + ${s} * ${colVecs}u + x + ${j * across}u]`)};`)}
      ${each((i, j) => `${sum}${i}_${j} = fma(${type}(a${i >> 2}[${i & 3}]), b${j}, ${sum}${i}_${j});`)}
    }`;
  const strip = tile.unrolled
    ? unroll(depth, (s) => one(`${s}u`))
    : `for (var s = 0u; s < ${depth}u; s++) ${one('s')}`;
  const multiply =
    products === 'f16'
      ? /* wgsl */ `${each((i, j) => `var part${i}_${j} = vec4<f16>();`)}
    ${strip}
    ${each((i, j) => `sum${i}_${j} += vec4f(part${i}_${j});`)}`
      : strip;
  const loop =
    buffers === 2
      ? /* wgsl */ `${store('0u * ')}
  workgroupBarrier();
  for (var step = 0u; step < u.steps; step++) {
    let half = step & 1u;
    if (step + 1u < u.steps) { ${fetch} }
    ${multiply}
    if (step + 1u < u.steps) { ${store('(1u - half) * ')} }
    workgroupBarrier();
  }`
      : /* wgsl */ `for (var step = 0u; step < u.steps; step++) {
    ${store('0u * ')}
    workgroupBarrier();
    if (step + 1u < u.steps) { ${fetch} }
    ${multiply}
    workgroupBarrier();
  }`;
  const body = /* wgsl */ `
var<workgroup> tileA: array<${element}, ${buffers * depth * rowVecs}>;
var<workgroup> tileB: array<${element}, ${buffers * depth * colVecs}>;
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3u) {
  let x = index % ${across}u;
  let y = index / ${across}u;
  var stripA = 0u;
  var stripB = 0u;
  ${a.before}
  ${b.before}
  ${each((i, j) => `var sum${i}_${j} = vec4f();`)}
  ${fetch}
  ${loop}
  ${each((i, j) => `c[(group.x * ${rows}u + (y + ${i >> 2}u * ${down}u) * 4u + ${i & 3}u) * u.pitchC + group.y * ${colVecs}u + x + ${j * across}u] = sum${i}_${j};`)}
}
`;
  return defineKernel({
    name: `gemm.thread-tile.${threadTileName(tile)}`,
    enable: staged === 'f16' ? ['f16'] : [],
    bindings: [read('a', raw), read('b', raw), write('c', 'vec4f')],
    uniforms: [
      u32('steps', k / depth),
      u32('pitchA', m / load),
      u32('pitchB', n / load),
      u32('pitchC', n / 4),
    ],
    body,
    grid: [m / rows, n / columns, 1],
  });
}
