// GEMM on matrix units (Dawn's `chromium_experimental_subgroup_matrix`): f16 factors, f32 sums.
//
// A unit multiplies an M x K by a K x N matrix per subgroup and instruction. A workgroup computes a tile of
// `rows` x `columns` (matrix-tile.ts); its subgroups share the tile in a grid, and each holds its part in result
// matrices.
//
// Versions on an H200 (bench/results/nvidia-h200-tiles.json), in TFLOP/s, with units of 16x16x16 unless stated
// otherwise; the units alone reach 641:
// - 4096 x 4096 x 4096: 214 for the best tile with Dawn's bounds checks; 275 without them (16x8x16, 128 x 256
//   x 32 in 2 x 4 subgroups, next strip in registers).
// - Layers of a UNet (`m` x `n` x `k`): 50.5 for 320 x 4096 x 320 and 68.7 for 1280 x 1024 x 1280, both with
//   tiles of 160 x 64 x 32; 44.1 for 320 x 65536 x 320.
// - 3x3 convolutions of conv2d-matrix.ts: 185 for 320 channels at 64x64, 198 for 1280 at 16x16 (both n
//   = 16, tiles of 160 x 128 x 16 in 5 x 2 subgroups, next strip in registers), 54 for stride 2.

import { ShapeError } from '../../src/errors.ts';
import { defineKernel, type Kernel, read, type Uniform, u32 } from '../../src/kernels/device/kernel.ts';
import type { WeightDtype } from '../../src/kernels/device/routine.ts';
import { unroll } from '../../src/kernels/gemm/gemm-spec.ts';
import { MATRIX_MODULE, matrixBody, resultBinding, type Staging, stageA, turns } from './matrix-body.ts';
import { areaB, HALVES, type MatrixOut, type MatrixTile, subgroups, tileName } from './matrix-tile.ts';

/**
 * c[m][n] = bias[m] + Σ_k a[k][m] · b[k][n], where a is f16 and b is f16 or f32. The caller pads the storage
 * so that the dimensions are multiples of the tile's (k of its depth). Pitches are in elements and multiples
 * of 8.
 */
export interface MatrixGemm extends MatrixOut {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly aPitch: number;
  readonly bPitch: number;
  readonly cPitch: number;
  /** How b is stored; f32 values are rounded to f16 when they are staged. */
  readonly bType?: WeightDtype;
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
