// Square tiles of output pixels: numbering, loading with the surrounding pixels, and storing.

import { divisor, QUOTIENT } from '../device/indexing.ts';
import { ceilDiv, LINEAR_GROUP, type Uniform, u32 } from '../device/kernel.ts';
import { pitch } from '../device/tensor.ts';
import type { Geometry } from './conv2d-shape.ts';

/** Returns the number of tiles of `size` by `size` in a convolution's output over the whole batch. */
export const tileCount = ({ y: [, n, h, w] }: Geometry, size: number): number =>
  n * ceilDiv(h, size) * ceilDiv(w, size);

/**
 * Returns the uniforms of `tileOf` for a grid over `count` tiles from `first` on per channel, `lanes` tiles
 * per workgroup.
 */
export function tileUniforms(
  { y }: Geometry,
  size: number,
  first: number,
  count: number,
  lanes: number,
): readonly Uniform[] {
  const across = ceilDiv(y[3], size);
  return [
    ...divisor('groupsAcross', ceilDiv(count, lanes)),
    ...divisor('tilesPerImage', across * ceilDiv(y[2], size)),
    ...divisor('tilesAcross', across),
    u32('firstTile', first),
    u32('tiles', count),
  ];
}

/**
 * Returns WGSL of `channelOf(group)` and `tileOf(group, channel, local)`: an invocation's channel (or block
 * of channels) and tile.
 */
export const tileOf = (lanes: number, size: number): string => /* wgsl */ `${QUOTIENT}${LINEAR_GROUP}
struct Tile { index: u32, sample: u32, top: u32, left: u32 }
fn channelOf(group: u32) -> u32 { return quotient(group, u.groupsAcross, u.groupsAcrossInverse); }
fn tileOf(group: u32, channel: u32, local: u32) -> Tile {
  let index = (group - channel * u.groupsAcross) * ${lanes} + local;
  let tile = u.firstTile + min(index, u.tiles - 1);
  let sample = quotient(tile, u.tilesPerImage, u.tilesPerImageInverse);
  let place = tile - sample * u.tilesPerImage;
  let row = quotient(place, u.tilesAcross, u.tilesAcrossInverse);
  return Tile(index, sample, ${size} * row, ${size} * (place - row * u.tilesAcross));
}
`;

export const lines = (count: number, line: (i: number) => string, separator = '\n  '): string =>
  Array.from({ length: count }, (_, i) => line(i)).join(separator);

/** Returns how many neighbouring pixels of a row can be stored as one aligned vector, at any tile of `size`. */
export const together = (width: number, size: number): 1 | 2 | 4 =>
  width % 4 === 0 && size % 4 === 0 ? 4 : width % 2 === 0 && size % 2 === 0 ? 2 : 1;

export const ELEMENTS = { 1: 'f32', 2: 'vec2f', 4: 'vec4f' } as const;

/** How a kernel loads a row of the input pixels of a tile, two more than it has output pixels. */
interface TileLoad {
  readonly element: 'f32' | 'vec4f';
  readonly uniforms: readonly Uniform[];
  /** WGSL before the loop over channels: which columns lie inside the image. Requires `tile`. */
  readonly begin: string;
  /**
   * Returns WGSL that sets `d`i`_0`, `d`i`_1`.. to row `row` of the tile with its border in `channel`,
   * mapped, and zero outside the image. Requires `slope`, `offset` and `channel`.
   */
  readonly row: (i: number, row: string) => string;
}

/**
 * Returns how tiles are loaded: rows of tiles of 4 as vec4s, if tiles start on vec4s and the padding to the left is 1.
 */
export function tileLoad({ x, top, left }: Geometry, size: number): TileLoad {
  const side = size + 2;
  const aligned = size === 4 && x[3] % 4 === 0 && left === 1;
  const pixels = (i: number) =>
    aligned
      ? `let mid${i} = x[select(0, at${i}, on${i} && in1)];
    let raw${i}_0 = x[select(0, at${i} - 1, on${i} && in0)].w;
    let raw${i}_5 = x[select(0, at${i} + 1, on${i} && in5)].x;
    ${lines(4, (j) => `let raw${i}_${j + 1} = mid${i}[${j}];`)}`
      : lines(side, (j) => `let raw${i}_${j} = x[select(0, at${i} + ${j}, on${i} && in${j})];`);
  return {
    element: aligned ? 'vec4f' : 'f32',
    uniforms: [
      u32('xPitch', pitch(x)),
      u32('xHeight', x[2]),
      u32('xWidth', x[3]),
      u32('top', top),
      u32('left', left),
    ],
    begin: `let top = tile.top - u.top; // outside the image above or to the left these wrap to huge numbers
  let left = tile.left - u.left;
  let above = (tile.sample * u.xHeight + top) * u.xWidth + left${aligned ? ' + 1' : ''};
  ${lines(side, (j) => `let in${j} = left + ${j} < u.xWidth;`)}`,
    row: (i, row) => `let on${i} = top + ${row} < u.xHeight;
    let at${i} = (channel * u.xPitch + above + (${row}) * u.xWidth)${aligned ? ' / 4' : ''};
    ${pixels(i)}
    ${lines(side, (j) => `let d${i}_${j} = select(0, mapped1(raw${i}_${j}, slope, offset), on${i} && in${j});`)}`,
  };
}

/**
 * Returns WGSL that stores the pixels of a tile. It requires `tile`, `yAt` (the index of its first pixel in y), and the
 * uniforms yWidth and yHeight. `value(i, j)` stores the vector of `width` pixels that starts at row i, column j.
 */
export function tileStore(size: number, width: 1 | 2 | 4, value: (i: number, j: number) => string): string {
  return lines(
    size,
    (i) => `if (tile.top + ${i} < u.yHeight) {
    ${lines(
      size / width,
      (k) => `if (tile.left + ${k * width} < u.yWidth) {
      let at = (yAt + ${i} * u.yWidth + ${k * width})${width > 1 ? ` / ${width}` : ''};
      ${value(i, k * width)}
    }`,
    )}
  }`,
  );
}
