// Convolution on matrix units as an implicit GEMM: rows are output channels, columns are output pixels, and k runs over
// rows of taps, input channels and the taps of a row.
//
// For one row of taps and `tile.depth` channels, a step stages one copy of the pixels per tap: for 3x3 taps of stride 1
// the pixels shifted left by one, unshifted, and shifted right by one. Units must load from addresses aligned to 16
// bytes, so they cannot read a shifted tap from a single copy. The input's affine map and activation, its enlargement
// and the zeros around the image are applied between storage and workgroup memory (conv2d-matrix-pixels.ts).
//
// Versions on an H200 (bench/results/nvidia-h200-tiles.json), in TFLOP/s; those kernels took whole tiles and rows of
// whole loads in f16, and stored the sums in f32 directly. This version has not been measured on a GPU yet.
// - 185 for 320 channels at 64x64, 198 for 1280 at 16x16 (both n = 16, tiles of 160 x 128 x 16 in 5 x 2 subgroups, next
//   strip in registers), 54 for stride 2.
// - Sums through workgroup memory to a result in f16 with a bias, 320 channels at 64x64: 37, for reasons unknown.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, defineKernel, type Kernel, MAX_GROUPS, read, u32, write } from '../device/kernel.ts';
import type { Routine } from '../device/routine.ts';
import { bucket } from '../device/shape-class.ts';
import { columns, pitch } from '../device/tensor.ts';
import { type TiledKernel, tunedKernel } from '../device/tuning.ts';
import { MATRIX_MODULE, matrixBody, type Staging, stageA } from '../gemm/matrix-body.ts';
import { lanesOf, type MatrixTile, tileName } from '../gemm/matrix-tile.ts';
import { matrixConvTile, matrixConvTiles } from '../gemm/matrix-tiles.ts';
import { stagedPixels } from './conv2d-matrix-pixels.ts';
import { epilogue, fusedTag, type Geometry, geometryOf, prologue } from './conv2d-shape.ts';
import { packRows, paddedChannels } from './conv2d-weights.ts';

/** Returns whether the kernel can compute a convolution: rows of up to three taps and strides of up to two. */
export const reachesMatrix = ({ kernel, stride, enlarge }: Geometry): boolean =>
  kernel[1] <= 3 && stride <= 2 && (stride === 1 || enlarge === 1);

const sizeOf = ({ y }: Geometry) => ({ rows: y[0], columns: columns(y) });

/** The convolution of the `matrix` family with its tiles as data. */
export const MATRIX_CONV: TiledKernel<Geometry, MatrixTile> = {
  shapeOf: (geometry) => ({
    kernel: `conv2d.matrix.${geometry.kernel.join('x')}.${geometry.stride}`,
    types: geometry.weights,
    sizes: {
      m: bucket(geometry.y[0]),
      k: bucket(geometry.x[0]),
      columns: bucket(columns(geometry.y)),
      width: bucket(geometry.y[3]),
    },
  }),
  nameOf: tileName,
  rule: (capabilities, geometry) => matrixConvTile(capabilities, sizeOf(geometry), geometry.kernel[1]),
  candidates: (capabilities, geometry) => matrixConvTiles(capabilities, sizeOf(geometry), geometry.kernel[1]),
  kernel: conv2dMatrixKernel,
  example: geometryOf({
    x: [320, 1, 64, 64],
    outChannels: 320,
    kernel: [3, 3],
    padding: [1, 1, 1, 1],
    bias: true,
    affine: 'silu',
    embedding: true,
    residual: true,
    weights: 'f16',
  }),
};

/** The operands that bindings with other names than theirs read. */
const OPERANDS: Readonly<Record<string, string>> = { a: 'weight', pixel: 'x' };

/** Returns the routine of a convolution that the kernel reaches. */
export function matrixConv2d(capabilities: Capabilities, geometry: Geometry): Routine {
  const kernel = tunedKernel(MATRIX_CONV, capabilities, geometry);
  return {
    steps: [{ kernel, operands: kernel.bindings.map(({ name }) => OPERANDS[name] ?? name) }],
    scratch: {},
    packing: { weight: packRows(geometry) },
  };
}

/**
 * Returns WGSL of the numbers that are added to four sums of channel `row` from `column` on: bias and embedding. The
 * columns may belong to several samples if an image's pixels are not a multiple of 4.
 */
function addends({ y, fused: { bias, embedding } }: Geometry): {
  readonly wgsl: string;
  readonly tag: string;
} {
  if (!embedding) return { wgsl: bias ? ' + addend(row, 0u)' : '', tag: '' };
  if ((y[2] * y[3]) % 4 === 0) return { wgsl: ' + addend(row, column / u.pixels)', tag: '' };
  const one = (i: number) => `addend(row, min(column + ${i}u, u.columns - 1u) / u.pixels)`;
  return { wgsl: ` + vec4f(${[0, 1, 2, 3].map(one).join(', ')})`, tag: '.apart' };
}

/** Returns the kernel with a tile that is possible on the device (`tileFault`). Its operands are those of `conv2d`. */
function conv2dMatrixKernel(capabilities: Capabilities, geometry: Geometry, tile: MatrixTile): Kernel {
  const { depth } = tile;
  const { x, y, kernel, stride, enlarge, top, left, weights, fused } = geometry;
  const lanes = lanesOf(capabilities);
  const taps = kernel[1];
  const on = prologue(geometry);
  const out = epilogue(geometry);
  const pixels = stagedPixels(geometry, tile);
  const add = addends(geometry);
  const staging: Staging = {
    start: `var firstChannel = 0u;
  var tapRow = 0u;`,
    advance: `tapRow++;
    if (tapRow == u.kernelHeight) { tapRow = 0u; firstChannel += ${depth}u; }`,
    a: stageA(tile, taps, {
      type: weights,
      first: '0u',
      row: (line) => ({
        at: `((firstChannel + ${line} % ${depth}u) * u.kernelHeight + tapRow) * ${taps}u + ${line} / ${depth}u`,
        exists: `firstChannel + ${line} % ${depth}u < u.channels`,
      }),
    }),
    b: pixels.vectors,
  };
  const rowTiles = ceilDiv(y[0], tile.rows);
  const columnTiles = ceilDiv(columns(y), tile.columns);
  const gridY = Math.min(columnTiles, MAX_GROUPS);
  return defineKernel({
    name: [
      `conv2d.matrix.${tileName(tile)}.taps${taps}.s${stride}.e${enlarge}.l${left}.${weights}`,
      `${pixels.tag}${add.tag}.${fusedTag(fused)}`,
    ].join('.'),
    ...MATRIX_MODULE,
    bindings: [
      read('a', weights === 'f16' ? 'vec2u' : 'vec4f'),
      ...pixels.bindings,
      ...on.bindings,
      ...out.bindings,
      write('y', 'vec4f'),
    ],
    uniforms: [
      u32('steps', kernel[0] * ceilDiv(x[0], depth)),
      u32('aPitch', paddedChannels(y[0]) / 4),
      u32('m', y[0]),
      u32('channels', x[0]),
      u32('kernelHeight', kernel[0]),
      u32('top', top),
      u32('columns', columns(y)),
      u32('columnTiles', columnTiles),
      u32('yPitch', pitch(y) / 4),
      u32('pixels', y[2] * y[3]),
      u32('width', y[3]),
      u32('xPitch', pitch(x)),
      u32('xHeight', x[2]),
      u32('xWidth', x[3]),
      ...on.uniforms,
      ...out.uniforms,
    ],
    body: matrixBody({
      tile,
      lanes,
      staging,
      taps,
      loadB: pixels.load,
      declarations: /* wgsl */ `${on.wgsl}${out.wgsl}
fn storeSums(first: u32, row: u32, column: u32, sums: vec4f) {
  if (row >= u.m || column >= u.columns) { return; }
  let at = first + row * u.yPitch + column / 4u;
  y[at] = finished(sums${add.wgsl}, at);
}`,
      place: /* wgsl */ `let columnTile = group.z * groups.y + group.y;
  if (columnTile >= u.columnTiles) { return; }
  let first = 0u;
  let firstRow = group.x * ${tile.rows}u;
  let firstColumn = columnTile * ${tile.columns}u;`,
    }),
    grid: [rowTiles, gridY, ceilDiv(columnTiles, gridY)],
  });
}
