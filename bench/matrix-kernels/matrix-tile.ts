// How a workgroup divides a product on matrix units: the sizes of a tile, the memory that it needs, and what makes a tile
// impossible on a device. A tile is plain data, so that a search can compare tiles and a table can ship the best ones.

import type { WeightDtype } from '../../src/kernels/device/routine.ts';

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
  /** Rows of a and b that are staged at a time (for a convolution: channels, each with three taps). */
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

/** What follows the sums: the type of the result and whether a bias [m] in f32 is added. */
export interface MatrixOut {
  readonly out: WeightDtype;
  readonly bias?: boolean;
}

/** Returns the bytes of workgroup memory that a tile needs; a convolution stages three taps at a time. */
export const tileBytes = (tile: MatrixTile, out: MatrixOut, taps = 1): number =>
  (tile.stage === 'direct' ? 0 : 2 * halves(tile) * (areaA(tile, taps) + areaB(tile, taps))) +
  (storesDirectly(out) ? 0 : 4 * subgroups(tile) * tile.unit.M * tile.unit.N);

/**
 * Returns whether the units store f32 sums directly. Any epilogue makes the sums pass through workgroup
 * memory.
 */
export const storesDirectly = ({ out, bias }: MatrixOut): boolean => out === 'f32' && !bias;

/** Returns the number of strips in workgroup memory. */
export const halves = ({ pipeline }: MatrixTile): number => (pipeline === 'double' ? 2 : 1);
export const subgroups = (tile: MatrixTile): number => tile.subgroupRows * tile.subgroupColumns;

/** The sizes, in f16 values, of a staged row of a, and of one strip of a and of b with all its taps. */
export const pitchA = ({ a, rows, depth, pad }: MatrixTile): number => (a === 'k-major' ? rows : depth) + pad;
export const areaA = (tile: MatrixTile, taps: number): number =>
  pitchA(tile) * (tile.a === 'k-major' ? taps * tile.depth : tile.rows);
export const areaB = ({ columns, depth, pad }: MatrixTile, taps: number): number =>
  taps * depth * (columns + pad);

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
  if (taps > 1 && (stage === 'direct' || tile.a === 'm-major'))
    return 'a convolution needs a tile that is staged and k-major';
  const threads = device.lanes * subgroups(tile);
  if (threads > device.invocations) return `${threads} invocations, the device allows ${device.invocations}`;
  const bytes = tileBytes(tile, out, taps);
  if (bytes > device.bytes) return `${bytes} bytes of workgroup memory, the device has ${device.bytes}`;
  return undefined;
}

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
