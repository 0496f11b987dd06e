// GEMM on matrix units (Dawn's `chromium_experimental_subgroup_matrix`): factors rounded to f16, f32 sums.
//
// A unit multiplies an M x K by a K x N matrix per subgroup and instruction. A workgroup computes a tile of
// `rows` x `columns` (matrix-tile.ts); its subgroups share the tile in a grid, and each holds its part in result
// matrices.
//
// Versions on an H200 (bench/results/nvidia-h200-tiles.json), in TFLOP/s, with units of 16x16x16 unless stated
// otherwise; the units alone reach 641. Those kernels took factors in f16 and whole tiles only, and their units stored
// the sums directly. This version, for any shape and with an epilogue, has not been measured on a GPU yet.
// - 4096 x 4096 x 4096: 214 for the best tile with Dawn's bounds checks; 275 without them (16x8x16, 128 x 256
//   x 32 in 2 x 4 subgroups, next strip in registers).
// - Sums through workgroup memory to a result in f16 with a bias, 4096 x 4096 x 4096: 42, for reasons unknown.
// - Layers of a UNet (`m` x `n` x `k`): 50.5 for 320 x 4096 x 320 and 68.7 for 1280 x 1024 x 1280, both with
//   tiles of 160 x 64 x 32; 44.1 for 320 x 65536 x 320.

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
  unroll,
} from './gemm-spec.ts';
import { MATRIX_MODULE, matrixBody, packed, type Staging, stageA, stripStart } from './matrix-body.ts';
import { areaB, lanesOf, type MatrixTile, tileName } from './matrix-tile.ts';
import { matrixGemmTile, matrixGemmTiles } from './matrix-tiles.ts';

const sizeOf = ({ m, columns, batch = [1, 1] }: GemmSpec) => ({
  rows: m,
  columns,
  matrices: batch[0] * batch[1],
});

/** The GEMM of the `matrix` family with its tiles as data. */
export const MATRIX_GEMM: TiledKernel<GemmSpec, MatrixTile> = {
  shapeOf: (spec) => gemmShape('gemm.matrix', spec),
  nameOf: tileName,
  rule: (capabilities, spec) => matrixGemmTile(capabilities, sizeOf(spec)),
  candidates: (capabilities, spec) => matrixGemmTiles(capabilities, sizeOf(spec)),
  kernel: gemmMatrix,
  example: EXAMPLE,
};

/**
 * Returns the kernel with a tile that is possible on the device (`tileFault`), for any numbers of rows, columns and
 * products. A tile at the edge repeats the last row or column of a factor, whose sums are not stored, and fills up k
 * with zeros.
 */
export function gemmMatrix(capabilities: Capabilities, spec: GemmSpec, tile: MatrixTile): Kernel {
  const { load, depth, columns } = tile;
  const lanes = lanesOf(capabilities);
  const wide = columns / load;
  const perLoad = load / 4;
  const { aType = 'f32', bias = false } = spec;
  const row = (line: string) => ({ at: `k + ${line}`, exists: `k + ${line} < u.k` });
  const staging: Staging = {
    start: 'var k = 0u;',
    advance: `k += ${depth}u;`,
    a: stageA(tile, 1, { type: aType, first: 'at.a', row }),
    b: {
      total: depth * wide,
      place: (id, index) => /* wgsl */ `
  let lineB${id} = ${index} / ${wide}u;
  let placeB${id} = ${index} % ${wide}u;
  let toB${id} = lineB${id} * ${(columns + tile.pad) / load}u + placeB${id};
  ${unroll(
    perLoad,
    (v) => `let fromB${id}_${v} = at.b + min(at.col + placeB${id} * ${perLoad}u + ${v}u, u.columns - 1u);
  var nextB${id}_${v}: vec4f;`,
  )}`,
      fetch: (id) => /* wgsl */ `if (k + lineB${id} < u.k) {
      let rowB = (k + lineB${id}) * u.bPitch;
      ${unroll(perLoad, (v) => `nextB${id}_${v} = b[fromB${id}_${v} + rowB];`)}
    } else { ${unroll(perLoad, (v) => `nextB${id}_${v} = vec4f();`)} }`,
      store: (id, half) =>
        `tileB[${stripStart(half, areaB(tile, 1) / load)}toB${id}] = ${packed('f32', load, (v) => `nextB${id}_${v}`)};`,
    },
  };
  const size = { rows: tile.rows, columns, load: 4 } as const;
  return defineKernel({
    name: `gemm.matrix.${tileName(tile)}.${aType}`,
    ...MATRIX_MODULE,
    bindings: gemmBindings(spec, size),
    uniforms: [...gemmUniforms(spec, size), u32('steps', Math.ceil(spec.k / depth))],
    body: matrixBody({
      tile,
      lanes,
      staging,
      taps: 1,
      loadB: load,
      declarations: /* wgsl */ `${gemmParts(spec, size)}
fn storeSums(first: u32, row: u32, column: u32, sums: vec4f) {
  if (row >= u.m || column / 4u >= u.columns) { return; }
  finish(first + row * u.cPitch + column / 4u, sums${bias ? ' + bias[row / 4u][row % 4u]' : ''});
}`,
      place: /* wgsl */ `let at = placeOf(group, groups);
  if (at.outside) { return; }
  let first = at.c;
  let firstRow = at.row;
  let firstColumn = at.col * 4u;`,
    }),
    grid: gemmGrid(spec, size),
  });
}
