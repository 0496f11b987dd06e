// The tiles that the search tries, most promising first, and the neighbours of a tile.

import type { MatrixUnit } from '../src/kernels/device/matrix-units.ts';
import type { MatrixTile } from '../src/kernels/gemm/matrix-tile.ts';
import type { ThreadTile } from './gemm-thread-tile.ts';

type Grid = readonly [rows: number, columns: number, subgroupRows: number, subgroupColumns: number];

/** Tiles for large products, in elements of a 16 x 16 unit. */
const LARGE: readonly Grid[] = [
  [128, 128, 2, 2],
  [128, 128, 2, 4],
  [128, 256, 2, 4],
  [256, 128, 4, 2],
  [128, 128, 4, 2],
  [128, 64, 2, 2],
  [64, 128, 2, 2],
  [64, 256, 1, 4],
  [256, 64, 4, 1],
  [128, 128, 4, 4],
  [128, 128, 1, 4],
  [64, 128, 1, 4],
  [256, 128, 4, 4],
];

/** Tiles for products with few rows or columns. */
const SMALL: readonly Grid[] = [
  [64, 128, 2, 2],
  [64, 64, 2, 2],
  [160, 128, 5, 2],
  [64, 128, 1, 4],
  [32, 128, 1, 4],
  [160, 64, 5, 1],
  [64, 64, 1, 2],
  [32, 64, 1, 2],
  [64, 32, 2, 1],
  [64, 256, 2, 4],
  [320, 64, 5, 1],
  [160, 128, 5, 4],
];

const matrixTile = (unit: MatrixUnit, [rows, columns, subgroupRows, subgroupColumns]: Grid): MatrixTile => {
  const scale = unit.M / 16;
  return {
    unit,
    rows: rows * scale,
    columns: columns * scale,
    depth: 32,
    subgroupRows,
    subgroupColumns,
    load: 8,
    pipeline: 'registers',
    pad: 8,
  };
};

/** Sorts units by their products per instruction, most first. */
const byVolume = (units: readonly MatrixUnit[]): MatrixUnit[] =>
  [...units].sort((p, q) => q.M * q.N * q.K - p.M * p.N * p.K);

/** Drops repeated tiles, keeping the first. */
export const distinct = <T>(tiles: readonly T[]): T[] => [
  ...new Map(tiles.map((tile) => [JSON.stringify(tile), tile] as const)).values(),
];

/** Returns the tiles of the coarse search over large GEMMs, most promising first. */
export function gemmTiles(units: readonly MatrixUnit[]): MatrixTile[] {
  const [first, ...others] = byVolume(units);
  if (!first) return [];
  const large = LARGE.map((grid) => matrixTile(first, grid));
  const base = large[0]!;
  return distinct([
    ...large.slice(0, 5),
    ...others.map((unit) => matrixTile(unit, LARGE[0]!)),
    ...large.slice(0, 3).map((tile): MatrixTile => ({ ...tile, pipeline: 'double' })),
    // Two strips of these fit into 48 KiB only without padding.
    ...large.slice(2, 4).map((tile): MatrixTile => ({ ...tile, pipeline: 'double', pad: 0 })),
    ...large.slice(0, 2).map((tile): MatrixTile => ({ ...tile, pipeline: 'none' })),
    ...large.slice(0, 3).map((tile) => ({ ...tile, depth: 64 })),
    ...large.slice(0, 2).map((tile): MatrixTile => ({ ...tile, depth: 16, pipeline: 'double' })),
    ...large.slice(5),
    { ...base, pad: 0 },
    { ...base, pad: 16 },
    { ...base, load: 4 },
    ...others.map((unit) => matrixTile(unit, LARGE[2]!)),
    ...large.slice(3).map((tile): MatrixTile => ({ ...tile, pipeline: 'double' })),
  ]);
}

/** Returns tiles for small products, which are tried in addition to the best ones for large products. */
export const smallTiles = (units: readonly MatrixUnit[]): MatrixTile[] => {
  const [first] = byVolume(units);
  return first ? SMALL.map((grid) => matrixTile(first, grid)) : [];
};

/** Returns the tiles of the coarse search over convolutions, which stage three taps at a time. */
export function convTiles(units: readonly MatrixUnit[]): MatrixTile[] {
  const [first, ...others] = byVolume(units);
  if (!first) return [];
  const shallow = [...LARGE.slice(0, 8), ...SMALL].map((grid) => ({ ...matrixTile(first, grid), depth: 16 }));
  const [base, wide] = [shallow[0]!, shallow[2]!];
  const half = matrixTile(first, [64, 128, 2, 2]);
  return distinct<MatrixTile>([
    base,
    shallow[1]!,
    wide,
    { ...half, depth: 16, pipeline: 'double' },
    half,
    { ...matrixTile(first, [160, 128, 5, 2]), depth: 16 },
    { ...base, pipeline: 'none' },
    { ...wide, pipeline: 'none' },
    ...others.map((unit) => ({ ...matrixTile(unit, LARGE[0]!), depth: 16 })),
    ...shallow.slice(3),
    { ...matrixTile(first, [64, 64, 2, 2]), depth: 16, pipeline: 'double' },
    { ...half, pad: 0, depth: 16, pipeline: 'double' },
    { ...base, pad: 0 },
    { ...base, load: 4 },
  ]);
}

/** Returns tiles that differ from a tile in one property. */
export function neighbours(tile: MatrixTile, units: readonly MatrixUnit[]): MatrixTile[] {
  const { rows, columns, depth, subgroupRows, subgroupColumns } = tile;
  return distinct<MatrixTile>([
    { ...tile, depth: depth * 2 },
    { ...tile, depth: depth / 2 },
    ...(['none', 'registers', 'double'] as const).map((pipeline) => ({ ...tile, pipeline })),
    ...[0, 8, 16, 24].map((pad) => ({ ...tile, pad })),
    { ...tile, load: 4 },
    { ...tile, subgroupRows: subgroupRows * 2 },
    { ...tile, subgroupColumns: subgroupColumns * 2 },
    { ...tile, subgroupRows: subgroupRows / 2 },
    { ...tile, subgroupColumns: subgroupColumns / 2 },
    { ...tile, subgroupRows: subgroupColumns, subgroupColumns: subgroupRows },
    { ...tile, rows: rows * 2, subgroupRows: subgroupRows * 2 },
    { ...tile, columns: columns * 2, subgroupColumns: subgroupColumns * 2 },
    { ...tile, rows: rows * 2 },
    { ...tile, columns: columns * 2 },
    { ...tile, rows: rows / 2 },
    { ...tile, columns: columns / 2 },
    ...units.filter(({ M }) => M === tile.unit.M).map((unit) => ({ ...tile, unit })),
  ]).filter(
    (near) =>
      Number.isInteger(near.depth) &&
      Number.isInteger(near.subgroupRows) &&
      Number.isInteger(near.subgroupColumns) &&
      JSON.stringify(near) !== JSON.stringify(tile),
  );
}

const threadTile = (
  [rows, columns, depth, threadRows, threadColumns]: readonly [number, number, number, number, number],
  more: Partial<ThreadTile>,
): ThreadTile => ({
  rows,
  columns,
  depth,
  threadRows,
  threadColumns,
  buffers: 2,
  stored: 'f32',
  staged: 'f32',
  products: 'f32',
  load: 4,
  unrolled: true,
  ...more,
});

const F16_STAGED: Partial<ThreadTile> = { stored: 'f16', staged: 'f16' };
const F16_WIDENED: Partial<ThreadTile> = { stored: 'f16', load: 8 };
const F16_PRODUCTS: Partial<ThreadTile> = { stored: 'f16', staged: 'f16', products: 'f16', load: 8 };

/** Returns the tiles of the search over GEMMs in the registers of invocations. */
export function threadTiles(): ThreadTile[] {
  const shapes = [
    [128, 128, 8, 8, 8],
    [128, 128, 16, 8, 8],
    [64, 128, 16, 8, 8],
    [128, 256, 8, 8, 16],
    [128, 128, 8, 8, 16],
    [64, 64, 16, 4, 8],
    [256, 128, 8, 16, 8],
    [64, 128, 8, 8, 4],
    [64, 64, 32, 4, 4],
  ] as const;
  const of = (more: Partial<ThreadTile>, count: number) =>
    shapes.slice(0, count).map((shape) => threadTile(shape, more));
  return distinct([
    ...of({}, 4),
    ...of(F16_WIDENED, 3),
    ...of(F16_PRODUCTS, 3),
    ...of(F16_STAGED, 2),
    ...of({ unrolled: false }, 3),
    ...of({ buffers: 1 }, 3),
    ...of({}, shapes.length),
    ...of(F16_PRODUCTS, shapes.length),
    ...of(F16_WIDENED, shapes.length),
    ...of({ ...F16_STAGED, load: 8 }, 3),
    ...of({ ...F16_PRODUCTS, buffers: 1 }, 3),
  ]);
}

/** Returns thread tiles that differ from a tile in one property. */
export function threadNeighbours(tile: ThreadTile): ThreadTile[] {
  const { rows, columns, depth, threadRows, threadColumns } = tile;
  return distinct<ThreadTile>([
    { ...tile, buffers: tile.buffers === 1 ? 2 : 1 },
    { ...tile, unrolled: !tile.unrolled },
    { ...tile, depth: depth * 2 },
    { ...tile, depth: depth / 2 },
    { ...tile, rows: rows * 2 },
    { ...tile, columns: columns * 2 },
    { ...tile, rows: rows / 2 },
    { ...tile, columns: columns / 2 },
    { ...tile, threadRows: threadRows * 2 },
    { ...tile, threadColumns: threadColumns * 2 },
    { ...tile, threadRows: threadRows / 2 },
    { ...tile, threadColumns: threadColumns / 2 },
  ]).filter(
    (near) =>
      near.depth >= 4 && near.threadRows % 4 === 0 && near.threadColumns % 4 === 0 && near.rows % 4 === 0,
  );
}
