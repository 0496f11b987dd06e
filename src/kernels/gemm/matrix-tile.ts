// How a workgroup divides a product on matrix units: the sizes of a tile, the memory that it needs, and what makes a tile
// impossible on a device. A tile is plain data, so that a search can compare tiles and a table can ship the best ones.

import type { Capabilities } from '../device/device.ts';
import type { MatrixUnit } from '../device/matrix-units.ts';

/** How a workgroup computes its part of a product on matrix units. */
export interface MatrixTile {
  readonly unit: MatrixUnit;
  /** Rows and columns of the result that one workgroup computes. */
  readonly rows: number;
  readonly columns: number;
  /** Rows of a and b that are staged at a time (for a convolution: channels, each with a row of taps). */
  readonly depth: number;
  /** The grid of subgroups over the tile; each computes rows / subgroupRows by columns / subgroupColumns. */
  readonly subgroupRows: number;
  readonly subgroupColumns: number;
  /** f16 values that one invocation stages at a time; also the width of workgroup memory's elements. */
  readonly load: 4 | 8;
  /**
   * none: load, barrier, multiply, barrier. registers: the next strip is loaded into registers while the
   * current one is multiplied. double: as registers, with two strips in workgroup memory and one barrier per
   * strip.
   */
  readonly pipeline: 'none' | 'registers' | 'double';
  /** f16 values between staged rows, so that units read from different banks; a multiple of 8. */
  readonly pad: number;
}

/** Bytes of workgroup memory through which the sums of a workgroup reach storage, if more than one matrix fits. */
const SCRATCH_BYTES = 8192;

/** Returns the number of strips in workgroup memory. */
export const strips = ({ pipeline }: MatrixTile): number => (pipeline === 'double' ? 2 : 1);
export const subgroups = (tile: MatrixTile): number => tile.subgroupRows * tile.subgroupColumns;

/** f16 values of one strip of a and of b with all its taps. */
export const areaA = ({ rows, depth, pad }: MatrixTile, taps: number): number => taps * depth * (rows + pad);
export const areaB = ({ columns, depth, pad }: MatrixTile, taps: number): number =>
  taps * depth * (columns + pad);

/** Returns the result matrices, side by side, that each subgroup moves through workgroup memory at a time. */
export function scratchMatrices(tile: MatrixTile): number {
  const across = tile.columns / tile.subgroupColumns / tile.unit.N;
  const fits = SCRATCH_BYTES / (4 * subgroups(tile) * tile.unit.M * tile.unit.N);
  for (let count = across; count > 1; count--) if (across % count === 0 && count <= fits) return count;
  return 1;
}

/** Returns the bytes of workgroup memory that a tile needs; a convolution stages a row of `taps` at a time. */
export const tileBytes = (tile: MatrixTile, taps = 1): number =>
  2 * strips(tile) * (areaA(tile, taps) + areaB(tile, taps)) +
  4 * subgroups(tile) * scratchMatrices(tile) * tile.unit.M * tile.unit.N;

/** What limits the tiles of a device. */
export type TileLimits = Pick<
  Capabilities,
  'subgroupSize' | 'subgroupMaxSize' | 'workgroupBytes' | 'maxInvocations'
>;

/** Returns the lanes that share a matrix; a workgroup is a whole number of times as wide. */
export const lanesOf = ({ subgroupSize, subgroupMaxSize = subgroupSize }: TileLimits): number =>
  subgroupMaxSize;

/** Returns why a tile is impossible on a device, or undefined if it is possible. */
export function tileFault(tile: MatrixTile, device: TileLimits, taps = 1): string | undefined {
  const { unit, rows, columns, depth, load, pad } = tile;
  if (rows % (tile.subgroupRows * unit.M) !== 0) return 'rows are not a multiple of the subgroups and unit';
  if (columns % (tile.subgroupColumns * unit.N) !== 0)
    return 'columns are not a multiple of the subgroups and unit';
  if (depth % unit.K !== 0) return 'the depth is not a multiple of the unit';
  if (pad % 8 !== 0 || rows % load !== 0 || columns % load !== 0) return 'rows are not whole loads';
  const threads = lanesOf(device) * subgroups(tile);
  if (threads > device.maxInvocations)
    return `${threads} invocations, the device allows ${device.maxInvocations}`;
  const bytes = tileBytes(tile, taps);
  if (bytes > device.workgroupBytes)
    return `${bytes} bytes of workgroup memory, the device has ${device.workgroupBytes}`;
  return undefined;
}

/** Returns a short name of a tile for labels and tables. */
export const tileName = (t: MatrixTile): string =>
  [
    `${t.unit.M}x${t.unit.N}x${t.unit.K}`,
    `${t.rows}x${t.columns}x${t.depth}`,
    `${t.subgroupRows}x${t.subgroupColumns}`,
    t.pipeline,
    `load${t.load}`,
    `pad${t.pad}`,
  ].join('.');
