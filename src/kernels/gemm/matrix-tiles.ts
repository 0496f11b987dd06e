// The tiles that products on matrix units choose from, and the rule that chooses one without a measurement.
//
// The lists hold the fastest tiles of a search on an H200 (bench/results/nvidia-h200-tiles.json), in TFLOP/s:
// - GEMM: 128 x 256 x 32 in 4 x 4 subgroups with units of 16x8x16, 214 for 4096 x 4096 x 4096; 160 x 64 x 32 in 5 x 1,
//   68.7 for 1280 x 1024 x 1280 and 50.5 for 320 x 4096 x 320; 64 x 128 x 32 in 2 x 2, 26 to 44 for 320 x 65536 x 320.
// - Convolution: 160 x 128 x 16 in 5 x 2, 185 for 320 channels at 64x64 and 198 for 1280 at 16x16 (n = 16);
//   128 x 128 x 16 in 2 x 4, 160 for 640 at 32x32; 128 x 256 x 16 in 2 x 4, 152 for 128 at 32x32 (n = 64); 64 x 64 x 16
//   in 2 x 2, 112 for the same with n = 8.
//
// Tiles never change an element's bytes: all of a device's tiles use units of the same depth and sum in the order of k.

import type { MatrixUnit } from '../device/matrix-units.ts';
import { type MatrixTile, subgroups, type TileLimits, tileFault } from './matrix-tile.ts';

/** What the rule knows about a device. */
export interface MatrixDevice extends TileLimits {
  readonly matrix?: readonly MatrixUnit[];
  readonly software?: boolean;
}

/** Sizes of a result on matrix units. */
export interface ResultSize {
  readonly rows: number;
  readonly columns: number;
  readonly matrices?: number;
}

type Grid = readonly [rows: number, columns: number, subgroupRows: number, subgroupColumns: number];

/** From large to small, for the rule. */
const GEMM_GRIDS: readonly Grid[] = [
  [128, 256, 4, 4],
  [160, 64, 5, 1],
  [64, 128, 2, 2],
  [64, 64, 2, 2],
  [32, 64, 1, 2],
  [16, 64, 1, 2],
];
const CONV_GRIDS: readonly Grid[] = [
  [160, 128, 5, 2],
  [128, 256, 2, 4],
  [128, 128, 2, 4],
  [64, 128, 2, 2],
  [64, 64, 2, 2],
  [32, 64, 1, 2],
  [16, 64, 1, 2],
];
/** Further tiles for a search on the device. */
const MORE_GRIDS: readonly Grid[] = [
  [128, 256, 2, 4],
  [160, 128, 5, 4],
  [128, 128, 2, 2],
  [128, 64, 2, 2],
  [64, 256, 2, 4],
  [64, 64, 1, 2],
  [160, 128, 5, 1],
  // A quarter of the registers per subgroup.
  [128, 128, 4, 4],
  [64, 128, 2, 4],
  [128, 64, 4, 2],
];

/** Rows of a strip of a GEMM, and channels of a strip of a convolution, whose order of summation they decide. */
const GEMM_DEPTH = 32;
const CONV_DEPTH = 16;

/** Workgroups that keep a large GPU busy: the H200 has 132 cores. */
const ENOUGH_GROUPS = 128;

/** Returns the units that tiles may use: those of the depth of the largest unit, which comes first. */
export function unitsOf({ matrix = [] }: MatrixDevice): MatrixUnit[] {
  const volume = ({ M, N, K }: MatrixUnit) => M * N * K;
  const [largest, ...others] = [...matrix].sort((p, q) => volume(q) - volume(p));
  return largest ? [largest, ...others.filter(({ K }) => K === largest.K)] : [];
}

const tileOf = (
  unit: MatrixUnit,
  [rows, columns, subgroupRows, subgroupColumns]: Grid,
  depth: number,
): MatrixTile => ({
  unit,
  rows,
  columns,
  depth,
  subgroupRows,
  subgroupColumns,
  load: 8,
  pipeline: 'registers',
  pad: 8,
});

/** Returns tiles of some grids. The largest tile of a GEMM was fastest with a narrow unit, all others with a square one. */
function tilesOf(device: MatrixDevice, grids: readonly Grid[], depth: number): MatrixTile[] {
  const [largest, ...others] = unitsOf(device);
  if (!largest) return [];
  const narrow = others.find(({ M, N }) => M === largest.M && N < largest.N) ?? largest;
  const tiles = grids.map((grid) => tileOf(grid[2] * grid[3] >= 16 ? narrow : largest, grid, depth));
  // A software driver needs minutes to compile the registers of its few lanes, and gains nothing from them.
  return device.software ? tiles.map((tile) => ({ ...tile, pipeline: 'none' })) : tiles;
}

const possible = (tiles: readonly MatrixTile[], device: MatrixDevice, taps: number): MatrixTile[] =>
  tiles.filter((tile) => tileFault(tile, device, taps) === undefined);

const roundUp = (value: number, part: number): number => Math.ceil(value / part) * part;

/**
 * Returns the largest tile that wastes at most a tenth of its rows and still gives every core a workgroup, else the
 * smallest of those that waste few rows.
 */
function choose(tiles: readonly MatrixTile[], { rows, columns, matrices = 1 }: ResultSize): MatrixTile {
  const least = Math.min(...tiles.map((tile) => roundUp(rows, tile.rows)));
  const tight = tiles.filter((tile) => roundUp(rows, tile.rows) <= 1.1 * least);
  const groups = (tile: MatrixTile) =>
    Math.ceil(rows / tile.rows) * Math.ceil(columns / tile.columns) * matrices;
  const chosen = tight.find((tile) => groups(tile) >= ENOUGH_GROUPS) ?? tight.at(-1);
  if (!chosen) throw new Error('matrix units: expected a tile that fits the device, got none');
  return chosen;
}

/** Returns the tile of a GEMM of a size. */
export const matrixGemmTile = (device: MatrixDevice, size: ResultSize): MatrixTile =>
  choose(possible(tilesOf(device, GEMM_GRIDS, GEMM_DEPTH), device, 1), size);

/** Returns the tile of a convolution with rows of `taps`. */
export const matrixConvTile = (device: MatrixDevice, size: ResultSize, taps: number): MatrixTile =>
  choose(possible(tilesOf(device, CONV_GRIDS, CONV_DEPTH), device, taps), size);

/** Returns a tile and its variants that a search should time: other units, paddings, widths of loads and pipelines. */
const variants = (tile: MatrixTile, units: readonly MatrixUnit[]): MatrixTile[] => [
  tile,
  ...units.map((unit) => ({ ...tile, unit })),
  { ...tile, load: 4 },
  { ...tile, pipeline: 'double' },
  { ...tile, pipeline: 'none' },
];

/** Returns whether a tile wastes at most half of its rows and columns. */
const fits = ({ rows, columns }: ResultSize, tile: MatrixTile): boolean =>
  tile.rows < 2 * roundUp(rows, 16) && tile.columns < 2 * roundUp(columns, 64) && subgroups(tile) <= 16;

/** Returns the tiles of a GEMM that are worth a measurement. */
export function matrixGemmTiles(device: MatrixDevice, size: ResultSize): MatrixTile[] {
  const tiles = tilesOf(device, [...GEMM_GRIDS, ...MORE_GRIDS], GEMM_DEPTH).filter((tile) =>
    fits(size, tile),
  );
  const all = tiles.flatMap((tile) => variants(tile, unitsOf(device)));
  return possible([...all, ...tiles.map((tile) => ({ ...tile, depth: 2 * GEMM_DEPTH }))], device, 1);
}

/** Returns the tiles of a convolution that are worth a measurement. */
export function matrixConvTiles(device: MatrixDevice, size: ResultSize, taps: number): MatrixTile[] {
  const tiles = tilesOf(device, [...CONV_GRIDS, ...MORE_GRIDS], CONV_DEPTH).filter((tile) =>
    fits(size, tile),
  );
  return possible(
    tiles.flatMap((tile) => variants(tile, unitsOf(device))),
    device,
    taps,
  );
}
