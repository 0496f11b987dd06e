// Tiles of 4x4 output pixels: how they are numbered, loaded with the pixels around them, and stored; and
// Winograd's maps F(4, 3) in one dimension (winograd.ts).

import type { Geometry } from './conv2d-shape.ts';
import { divisor, QUOTIENT } from './indexing.ts';
import { ceilDiv, LINEAR_GROUP, type Uniform, u32 } from './kernel.ts';
import { pitch } from './tensor.ts';

/** Tiles of a convolution's output over the whole batch. */
export const tileCount = ({ y: [, n, h, w] }: Geometry): number => n * ceilDiv(h, 4) * ceilDiv(w, 4);

/** Uniforms of `tileOf` for a grid that covers `channels` times `count` tiles from `first` on, `lanes` a group. */
export function tileUniforms(
  { y }: Geometry,
  first: number,
  count: number,
  lanes: number,
): readonly Uniform[] {
  const across = ceilDiv(y[3], 4);
  return [
    ...divisor('groupsAcross', ceilDiv(count, lanes)),
    ...divisor('tilesPerImage', across * ceilDiv(y[2], 4)),
    ...divisor('tilesAcross', across),
    u32('firstTile', first),
    u32('tiles', count),
  ];
}

/** `channelOf(group)` and `tileOf(group, channel, local)`: an invocation's channel (or block of them) and tile. */
export const tileOf = (lanes: number): string => /* wgsl */ `${QUOTIENT}${LINEAR_GROUP}
struct Tile { index: u32, sample: u32, top: u32, left: u32 }
fn channelOf(group: u32) -> u32 { return quotient(group, u.groupsAcross, u.groupsAcrossInverse); }
fn tileOf(group: u32, channel: u32, local: u32) -> Tile {
  let index = (group - channel * u.groupsAcross) * ${lanes} + local;
  let tile = u.firstTile + min(index, u.tiles - 1);
  let sample = quotient(tile, u.tilesPerImage, u.tilesPerImageInverse);
  let place = tile - sample * u.tilesPerImage;
  let row = quotient(place, u.tilesAcross, u.tilesAcrossInverse);
  return Tile(index, sample, 4 * row, 4 * (place - row * u.tilesAcross));
}
`;

export const lines = (count: number, line: (i: number) => string, separator = '\n  '): string =>
  Array.from({ length: count }, (_, i) => line(i)).join(separator);

/** How many neighbouring pixels of a row lie together in storage wherever a tile starts. */
export const together = (width: number): 1 | 2 | 4 => (width % 4 === 0 ? 4 : width % 2 === 0 ? 2 : 1);

export const ELEMENTS = { 1: 'f32', 2: 'vec2f', 4: 'vec4f' } as const;

/** How a kernel loads the 6x6 input pixels of a tile. */
export interface TileLoad {
  readonly element: 'f32' | 'vec4f';
  readonly uniforms: readonly Uniform[];
  /** Before any channel: which rows and columns lie inside the image. Wants `tile`. */
  readonly begin: string;
  /** `d00`..`d55` of `channel`, mapped and zero outside the image. Wants `slope`, `offset` and `channel`. */
  readonly load: string;
}

/** Rows are loaded as vec4s where tiles start on them and the padding to the left is 1. */
export function tileLoad({ x, top, left }: Geometry): TileLoad {
  const aligned = x[3] % 4 === 0 && left === 1;
  const row = aligned
    ? (i: number) => `let at${i} = plane + line${i};
  let mid${i} = x[select(0, at${i}, on${i} && in1)];
  let raw${i}0 = x[select(0, at${i} - 1, on${i} && in0)].w;
  let raw${i}5 = x[select(0, at${i} + 1, on${i} && in5)].x;
  ${lines(4, (j) => `let raw${i}${j + 1} = mid${i}[${j}];`)}`
    : (i: number) => `let at${i} = plane + line${i};
  ${lines(6, (j) => `let raw${i}${j} = x[select(0, at${i} + ${j}, on${i} && in${j})];`)}`;
  return {
    element: aligned ? 'vec4f' : 'f32',
    uniforms: [
      u32('xPitch', pitch(x)),
      u32('xHeight', x[2]),
      u32('xWidth', x[3]),
      u32('top', top),
      u32('left', left),
    ],
    begin: `let top = tile.top - u.top; // above or left of the image these wrap to huge numbers
  let left = tile.left - u.left;
  ${lines(6, (j) => `let in${j} = left + ${j} < u.xWidth;`)}
  ${lines(
    6,
    (i) => `let on${i} = top + ${i} < u.xHeight;
  let line${i} = ((tile.sample * u.xHeight + top + ${i}) * u.xWidth + left${aligned ? ' + 1) / 4' : ')'};`,
  )}`,
    load: `let plane = channel * ${aligned ? '(u.xPitch / 4)' : 'u.xPitch'};
  ${lines(6, row)}
  ${lines(6, (i) => lines(6, (j) => `let d${i}${j} = select(0, mapped1(raw${i}${j}, slope, offset), on${i} && in${j});`))}`,
  };
}

/**
 * Stores the 4x4 pixels `q00`..`q33` of a tile: wants `tile`, `yAt` (the place of its first pixel in y), and uniforms
 * yWidth and yHeight. `value(i, j)` is the vector of `width` pixels that starts at row i, column j.
 */
export function tileStore(width: 1 | 2 | 4, value: (i: number, j: number) => string): string {
  return lines(
    4,
    (i) => `if (tile.top + ${i} < u.yHeight) {
    ${lines(
      4 / width,
      (k) => `if (tile.left + ${k * width} < u.yWidth) {
      let at = (yAt + ${i} * u.yWidth + ${k * width})${width > 1 ? ` / ${width}` : ''};
      ${value(i, k * width)}
    }`,
    )}
  }`,
  );
}

/** Bᵀ d of six values named by `d`, into `to`0..5. */
export const forward = (d: (i: number) => string, to: string): string => `
  let ${to}a = ${d(4)} - 4 * ${d(2)};
  let ${to}b = ${d(3)} - 4 * ${d(1)};
  let ${to}c = ${d(4)} - ${d(2)};
  let ${to}d = 2 * (${d(3)} - ${d(1)});
  let ${to}0 = 4 * (${d(0)} - ${d(2)}) + ${to}c;
  let ${to}1 = ${to}a + ${to}b;
  let ${to}2 = ${to}a - ${to}b;
  let ${to}3 = ${to}c + ${to}d;
  let ${to}4 = ${to}c - ${to}d;
  let ${to}5 = ${d(5)} - ${d(3)} - 2 * ${to}d;`;

/** Aᵀ m of six values named by `m`, into `to`0..3. */
export const backward = (m: (i: number) => string, to: string): string => `
  let ${to}a = ${m(1)} + ${m(2)};
  let ${to}b = ${m(1)} - ${m(2)};
  let ${to}c = ${m(3)} + ${m(4)};
  let ${to}d = ${m(3)} - ${m(4)};
  let ${to}0 = ${m(0)} + ${to}a + ${to}c;
  let ${to}1 = ${to}b + 2 * ${to}d;
  let ${to}2 = ${to}a + 4 * ${to}c;
  let ${to}3 = ${to}b + 8 * ${to}d + ${m(5)};`;
