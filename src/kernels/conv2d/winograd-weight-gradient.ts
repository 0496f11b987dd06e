// The gradient of 3x3 weights by Winograd's method: like the forward pass, it multiplies transformed tiles
// place by place.
//
//   y = Aᵀ [(G g Gᵀ) ∘ (Bᵀ d B)] A   so that   dg = Gᵀ [Σ over tiles (A dy Aᵀ) ∘ (Bᵀ d B)] G
//
// Both factors of a product need their tiles as rows. Versions on lavapipe (2 cores, Mesa 25.0.7), in ms and, in
// parentheses, as the speed relative to the forward pass (bench/backward.ts), for 128 channels at 32x32 (n = 8), 128 at
// 16x16 (n = 8), 32 at 14x14 (n = 64) and 96 at 7x7 (n = 64):
// - Tiles as columns, as in the forward pass, and then transposed; tiles of 4: 32.1 (0.51), 6.7 (0.70), 7.7 (0.44) and
//   9.0 (0.40). The transposes take a quarter to a half of that. They store the places of a tile next to each other, so
//   that the products read rows 18 KB apart: 15.9 ms instead of 11.2.
// - Tiles as rows at once, stored as vec4s of four channels, each place by itself, and tiles of 7 wherever the forward
//   pass has them: 15.8 (1.06), 4.7 (0.85), 3.1 (1.06), 5.0 (0.73).
// - Three rows of a tile per iteration instead of one: the pixels' transform takes 3.5 instead of 2.7 ms at 32x32,
//   because the code exceeds the instruction cache.
// - Tiles of x and dy in one launch, by processor time: 0.97, 0.87, 1.31 and, for 64 channels at 8x8 (n = 32), 0.96 instead
//   of 0.86.
// - A row of places combined before its sums are stored (as here; winograd-weight-product.ts): 15.9 (1.01), 4.3 (0.94),
//   3.0 (1.1), 3.6 (1.02), and 1.19 (0.98) for 64 channels at 7x7, n = 32.

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT } from '../device/indexing.ts';
import {
  accumulate,
  ceilDiv,
  LINEAR_GROUP,
  linearGrid,
  linearMain,
  read,
  type Uniform,
  u32,
  write,
} from '../device/kernel.ts';
import { type Routine, type Step, step } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';
import { gemm } from '../gemm/gemm.ts';
import type { Geometry } from './conv2d-shape.ts';
import { lines, tileCount, tileLoad, tileOf, tileUniforms } from './conv2d-tiles.ts';
import { CONVOLUTIONS } from './families.ts';
import { mapsFor } from './winograd.ts';
import type { Maps } from './winograd-maps.ts';
import { rowProducts, rowSums, rowTransform, storeWeights } from './winograd-weight-product.ts';

const LANES = 32;
/** Bytes of one operand's transformed tiles in a pass. */
const PASS_BYTES = 2 ** 25;
/** Elements between places, one cache line. Without it strides are powers of two and all places map to one cache set. */
const APART = 16;

/**
 * Sums of at most this many tiles are not worth storing the sums of all places. 320 channels at 8x8 take 6.5 ms for 4 tiles
 * and 7.2 for 8; products with gathered taps take 3.9 and 5.7. 64 channels at 7x7 take 1.1 and 0.9 ms for 1 and 8 tiles, and
 * 0.4 and 0.8 (lavapipe, 2 cores).
 */
const FEW_TILES = 8;

/**
 * Returns whether the method applies: 3x3, stride 1, at least 16 channels in multiples of 4 (an invocation
 * transforms four), more than a few tiles, and scratch for a block of tiles that can be bound.
 */
export function fitsWinograd(capabilities: Capabilities, geometry: Geometry, block: number): boolean {
  const {
    x: [ic],
    y: [oc],
    kernel,
    stride,
  } = geometry;
  if (kernel[0] !== 3 || kernel[1] !== 3 || stride !== 1) return false;
  if ([ic, oc].some((channels) => channels < 16 || channels % 4 !== 0)) return false;
  const { size } = mapsFor(capabilities, geometry);
  const places = (size + 2) ** 2;
  const all = tileCount(geometry, size);
  if (all <= FEW_TILES) return false;
  const tiles = Math.min(block, all);
  return 4 * places * (Math.max(ic * oc, Math.max(ic, oc) * tiles) + APART) <= capabilities.maxBindingBytes;
}

/** Tiles `first`..`first + count` of a pass, and the distance in elements between places of tilesOfX and of tilesOfDy. */
interface TileRange {
  readonly first: number;
  readonly count: number;
  readonly inPlace: number;
  readonly outPlace: number;
}

/**
 * Returns a routine for y of `weightGradient`. It sums tiles in blocks of `block`, one after the other, and
 * then the blocks. A pass transforms the tiles of x and dy, multiplies them, and transforms back.
 */
export function winogradWeightGradient(
  capabilities: Capabilities,
  geometry: Geometry,
  block: number,
): Routine {
  const {
    x: [ic],
    y: [oc],
  } = geometry;
  const maps = mapsFor(capabilities, geometry);
  const places = (maps.size + 2) ** 2;
  const tiles = tileCount(geometry, maps.size);
  const byRow = capabilities.family === 'subgroup';
  const part = byRow ? rowSums(geometry, maps) : places * oc * ic;
  const { maxBindingBytes } = capabilities;
  const bytes = Math.min(PASS_BYTES, maxBindingBytes);
  const blocks = Math.floor(
    Math.min(bytes / (4 * places * Math.max(ic, oc) * block), maxBindingBytes / (4 * part)),
  );
  const most = Math.max(1, blocks) * block;
  const held = Math.min(most, tiles);
  const [inPlace, outPlace] = [ic * held + APART, oc * held + APART];
  const steps: Step[] = [];
  for (let first = 0; first < tiles; first += most) {
    const count = Math.min(most, tiles - first);
    steps.push(transformTiles(capabilities, geometry, maps, { first, count, inPlace, outPlace }));
    if (byRow) {
      steps.push(
        rowProducts(capabilities, geometry, maps, { tiles: count, block, inPlace, outPlace }),
        rowTransform(geometry, maps, ceilDiv(count, block), first > 0),
      );
      continue;
    }
    for (let from = 0; from < count; from += block)
      steps.push({
        kernel: gemm(capabilities, {
          m: oc,
          k: Math.min(block, count - from),
          columns: ic,
          batch: [1, places],
          a: { pitch: oc, inner: outPlace, offset: from * oc },
          b: { pitch: ic, inner: inPlace, offset: from * ic },
          c: { pitch: places * ic, inner: ic, offset: (from / block) * part },
        }),
        operands: ['tilesOfDy', 'tilesOfX', 'parts'],
      });
    steps.push(weightTransform(geometry, maps, ceilDiv(count, block), first > 0));
  }
  return {
    steps,
    scratch: {
      tilesOfX: 4 * places * inPlace,
      tilesOfDy: 4 * places * outPlace,
      parts: 4 * part * ceilDiv(held, block),
    },
    packing: {},
  };
}

/** How a transform loads a row of a tile in one channel. */
interface RowLoad {
  readonly element: 'f32' | 'vec4f';
  readonly uniforms: readonly Uniform[];
  /** WGSL before the first row. Requires `tile`. */
  readonly begin: string;
  /** WGSL that sets `d`i`_0`, `d`i`_1`.. to row `row` of the tile in `channel`, zero outside the image. */
  readonly row: (i: number, row: string) => string;
}

/** Returns how rows of a tile of dy are loaded: as vec4s, if tiles of 4 start on vec4s. */
function gradientLoad(dy: Shape, size: number): RowLoad {
  const aligned = size === 4 && dy[3] % 4 === 0;
  return {
    element: aligned ? 'vec4f' : 'f32',
    uniforms: [u32('dyPitch', pitch(dy)), u32('height', dy[2]), u32('width', dy[3])],
    begin: /* wgsl */ `let corner = (tile.sample * u.height + tile.top) * u.width + tile.left;
  ${lines(size, (j) => `let in${j} = tile.left + ${j} < u.width;`)}`,
    row: (i, row) => /* wgsl */ `let on${i} = tile.top + ${row} < u.height;
    let at${i} = ${aligned ? '(' : ''}channel * u.dyPitch + corner + (${row}) * u.width${aligned ? ') / 4' : ''};
    ${
      aligned
        ? `let raw${i} = select(vec4f(), dy[select(0, at${i}, on${i})], on${i});
    ${lines(size, (j) => `let d${i}_${j} = raw${i}[${j}];`)}`
        : lines(
            size,
            (j) =>
              `let d${i}_${j} = select(0, dy[select(0, at${i} + ${j}, on${i} && in${j})], on${i} && in${j});`,
          )
    }`,
  };
}

/**
 * Returns the step for tilesOfX[place][tile][c] = Bᵀ d B of the pixels d of x under each tile, and tilesOfDy[place][tile][o]
 * = A dy Aᵀ. An invocation transforms one tile of one or several fours of channels, so that it stores vec4s. One launch
 * does both, because a launch costs 0.1 ms on a software adapter.
 */
function transformTiles(
  { family }: Capabilities,
  geometry: Geometry,
  { size, forward, spread }: Maps,
  { first, count, inPlace, outPlace }: TileRange,
): Step {
  const [ic, oc] = [geometry.x[0], geometry.y[0]];
  const each = ceilDiv(CONVOLUTIONS[family].channelsEach, 4);
  const blocksOfX = ceilDiv(ic / 4, each);
  const ofX = tileLoad(geometry, size);
  const ofDy = gradientLoad(geometry.y, size);
  const loop = (count: string, quads: string, body: string) => /* wgsl */ `
    for (var quad = ${count}; quad < min(${count} + ${each}, ${quads}); quad++) { ${body} }`;
  return step({
    name: `winograd${size}.tiles.${ofX.element}.${ofDy.element}`,
    bindings: [
      read('x', ofX.element),
      read('dy', ofDy.element),
      write('tilesOfX', 'vec4f'),
      write('tilesOfDy', 'vec4f'),
    ],
    uniforms: [
      ...tileUniforms(geometry, size, first, count, LANES),
      u32('blocksOfX', blocksOfX),
      u32('quadsOfX', ic / 4),
      u32('quadsOfDy', oc / 4),
      u32('inPlace', inPlace / 4),
      u32('outPlace', outPlace / 4),
      ...ofX.uniforms,
      ...ofDy.uniforms,
    ],
    body: /* wgsl */ `${tileOf(LANES, size)}
fn mapped1(v: f32, slope: f32, offset: f32) -> f32 { return v; }
${linearMain(LANES)}
  let slope = 1.0;
  let offset = 0.0;
  let block = channelOf(linearGroup(group, groups));
  let tile = tileOf(linearGroup(group, groups), block, local);
  if (tile.index >= u.tiles) { return; }
  if (block < u.blocksOfX) {
    ${ofX.begin}
    ${loop(`block * ${each}`, 'u.quadsOfX', transformed(size, size + 2, ofX, forward, ['tilesOfX', 'u.quadsOfX', 'u.inPlace']))}
  } else {
    ${ofDy.begin}
    ${loop(`(block - u.blocksOfX) * ${each}`, 'u.quadsOfDy', transformed(size, size, ofDy, spread, ['tilesOfDy', 'u.quadsOfDy', 'u.outPlace']))}
  }
}`,
    grid: linearGrid(ceilDiv(count, LANES) * (blocksOfX + ceilDiv(oc / 4, each))),
  });
}

/**
 * Returns WGSL that transforms a tile of `rows` rows in four channels by a map of rows and columns, and stores it with
 * channels as columns. It has one row or three columns per iteration, with all values moved along, so that it stays in
 * the instruction cache; see winograd-transforms.ts.
 */
function transformed(
  size: number,
  rows: number,
  load: RowLoad,
  map: Maps['forward'],
  [to, quads, placePitch]: readonly [to: string, quads: string, placePitch: string],
): string {
  const side = size + 2;
  return /* wgsl */ `
  ${lines(rows, (i) => lines(side, (j) => `var p${i}_${j} = vec4f();`, ' '))}
  for (var row = 0u; row < ${rows}; row++) {
    ${lines(rows, (j) => `var v${j}: vec4f;`, ' ')}
    ${lines(
      4,
      (c) => `{ let channel = 4 * quad + ${c};
    ${load.row(0, 'row')}
    ${lines(rows, (j) => `v${j}[${c}] = d0_${j};`, ' ')} }`,
    )}
    ${map((j) => `v${j}`, 'r')}
    ${lines(rows, (i) => lines(side, (j) => `p${i}_${j} = ${i + 1 < rows ? `p${i + 1}_${j}` : `r${j}`};`, ' '))}
  }
  var to = tile.index * ${quads} + quad;
  for (var column = 0u; column < ${side}; column += 3) {
    ${lines(3, (j) => map((i) => `p${i}_${j}`, `q${j}_`))}
    ${lines(3, (j) => lines(side, (i) => `${to}[to + ${i * side + j} * ${placePitch}] = q${j}_${i};`))}
    to += 3 * ${placePitch};
    ${lines(rows, (i) => lines(side - 3, (j) => `p${i}_${j} = p${i}_${j + 3};`, ' '))}
  }`;
}

/**
 * Returns the step for y[o, c] = Gᵀ U G of the sum U of `count` parts [place][o][c], or y plus that if
 * `more`; an invocation computes the nine weights of four input channels.
 */
function weightTransform({ x: [ic], y: [oc] }: Geometry, maps: Maps, count: number, more: boolean): Step {
  const { size, G } = maps;
  const side = size + 2;
  const column = (k: number, value: (i: number) => string): string =>
    G.flatMap((row, i) => (row[k] === 0 ? [] : [`${row[k]} * ${value(i)}`])).join(' + ');
  return step({
    name: `winograd${size}.weights${more ? '.more' : ''}`,
    bindings: [read('parts', 'vec4f'), (more ? accumulate : write)('y', 'vec4f')],
    uniforms: [
      ...divisor('quads', ic / 4),
      u32('outChannels', oc),
      u32('part', (side * side * oc * ic) / 4),
      u32('number', count),
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${QUOTIENT}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let o = quotient(index, u.quads, u.quadsInverse);
  if (o >= u.outChannels) { return; }
  ${lines(side, (i) => lines(3, (l) => `var p${i}_${l} = vec4f();`, ' '))}
  for (var row = 0u; row < ${side}; row += 3) {
    var at = (o * ${side * side - 1} + ${side} * row) * u.quads + index;
    ${lines(3, (i) => lines(side, (j) => `var m${i}_${j} = parts[at + ${i * side + j} * u.quads];`))}
    for (var part = 1u; part < u.number; part++) {
      at += u.part;
      ${lines(3, (i) => lines(side, (j) => `m${i}_${j} += parts[at + ${i * side + j} * u.quads];`))}
    }
    ${lines(3, (i) => lines(3, (l) => `let r${i}_${l} = ${column(l, (j) => `m${i}_${j}`)};`))}
    ${lines(side, (i) => lines(3, (l) => `p${i}_${l} = ${i + 3 < side ? `p${i + 3}_${l}` : `r${i + 3 - side}_${l}`};`, ' '))}
  }
  ${storeWeights(maps, more)}
}`,
    grid: linearGrid(ceilDiv((oc * ic) / 4, LANES)),
  });
}
