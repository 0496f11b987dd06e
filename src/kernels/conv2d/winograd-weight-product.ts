// The products of a gradient of 3x3 weights between Winograd's transforms, for the family of software adapters. The sums of
// the places in a row of the transformed tile are combined before they are stored: three numbers instead of six or nine.
//
// On lavapipe (2 cores, Mesa 25.0.7), in ms, with a GEMM per place and the transform of its results, and here: 128 channels at
// 32x32, n = 8: 11.2 + 0.6, 10.7 + 0.2; 96 at 7x7, n = 64: 2.8 + 0.7, 1.9 + 0.2; 64 at 7x7, n = 32: 0.7 + 0.4, 0.6 + 0.1.

import type { Capabilities } from '../device/device.ts';
import { blocks, divisor, QUOTIENT } from '../device/indexing.ts';
import {
  accumulate,
  ceilDiv,
  LINEAR_GROUP,
  linearGrid,
  linearMain,
  read,
  u32,
  write,
} from '../device/kernel.ts';
import { type Step, step } from '../device/routine.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import type { Geometry } from './conv2d-shape.ts';
import { lines } from './conv2d-tiles.ts';
import type { Maps } from './winograd-maps.ts';

const LANES = 32;

/** Tiles by which the sum is unrolled. */
const DEPTH = 4;

/** The transformed tiles of a pass, which are summed in blocks of `block`. */
interface Tiles {
  readonly tiles: number;
  readonly block: number;
  /** Distance between places of tilesOfX and tilesOfDy in elements. */
  readonly inPlace: number;
  readonly outPlace: number;
}

/** Returns the elements of a block's sums. */
export const rowSums = ({ x: [ic], y: [oc] }: Geometry, { size }: Maps): number => 3 * (size + 2) * oc * ic;

/**
 * Returns the step for parts[block][o][i][l][c] = Σ_j G[j][l] Σ over the block's tiles of tilesOfDy[(i, j)][tile][o]
 * tilesOfX[(i, j)][tile][c].
 *
 * A workgroup is one subgroup and computes 32 x 32 channels (8 lanes) of one row i. As in `gemmSubgroup`, a lane loads four
 * output channels, which are broadcast, and owns four input channels.
 */
export function rowProducts(
  { subgroupSize: lanes }: Capabilities,
  { x: [inChannels], y: [outChannels] }: Geometry,
  { size, G }: Maps,
  { tiles, block, inPlace, outPlace }: Tiles,
): Step {
  const side = size + 2;
  const rows = 4 * lanes;
  const stored = rows / 4; // rows that are stored per iteration
  // Every block of tiles has one part for each row i.
  const walk = blocks(lanes, {
    rowBlocks: ceilDiv(outChannels, rows),
    columnBlocks: ceilDiv(inChannels, rows),
    parts: ceilDiv(tiles, block) * side,
  });
  const steps = Array.from({ length: DEPTH }, (_, s) => s);
  const table = G.map((row) => `vec3f(${row.join(', ')})`).join(', ');
  return step({
    name: `winograd${size}.products`,
    enable: ['subgroups'],
    bindings: [read('tilesOfDy', 'vec4f'), read('tilesOfX', 'vec4f'), write('parts', 'vec4f')],
    uniforms: [
      ...walk.uniforms,
      u32('block', block),
      u32('tiles', tiles),
      u32('outChannels', outChannels),
      u32('quadsOfDy', outChannels / 4),
      u32('quadsOfX', inChannels / 4),
      u32('inPlace', inPlace / 4),
      u32('outPlace', outPlace / 4),
    ],
    body: /* wgsl */ `const LANES = ${lanes}u;
const G = array<vec3f, ${side}>(${table});
${walk.main(/* wgsl */ `let block = part / ${side};
  let i = part - block * ${side};
  let row = rowBlock * ${rows};
  let column = columnBlock * LANES + local;
  let first = block * u.block;
  let last = min(first + u.block, u.tiles);
  let fromA = first * u.quadsOfDy + min(row / 4 + local, u.quadsOfDy - 1) + i * ${side} * u.outPlace;
  let fromB = first * u.quadsOfX + min(column, u.quadsOfX - 1) + i * ${side} * u.inPlace;
  ${unroll(rows, (x) => unroll(3, (l) => `var r${x}_${l} = vec4f();`))}
  for (var j = 0u; j < ${side}; j++) {
    ${unroll(rows, (x) => `var c${x} = vec4f();`)}
    var a = fromA + j * u.outPlace;
    var b = fromB + j * u.inPlace;
    for (var tile = first; tile < last; tile += ${DEPTH}) {
      ${steps
        .map((s) =>
          s === 0
            ? `let a0 = tilesOfDy[a]; let b0 = tilesOfX[b];`
            : `let in${s} = tile + ${s} < last;
      let a${s} = select(vec4f(), tilesOfDy[select(a, a + ${s} * u.quadsOfDy, in${s})], in${s});
      let b${s} = tilesOfX[select(b, b + ${s} * u.quadsOfX, in${s})];`,
        )
        .join('\n      ')}
      a += ${DEPTH} * u.quadsOfDy;
      b += ${DEPTH} * u.quadsOfX;
      ${unroll(
        rows,
        (x) =>
          `c${x} = ${steps.reduce((sum, s) => `fma(vec4f(subgroupBroadcast(a${s}[${x % 4}], ${x >> 2}u)), b${s}, ${sum})`, `c${x}`)};`,
      )}
    }
    let g = G[j];
    ${unroll(rows, (x) => unroll(3, (l) => `r${x}_${l} = fma(vec4f(g[${l}]), c${x}, r${x}_${l});`))}
  }
  if (column >= u.quadsOfX) { return; }
  let end = min(row + ${rows}, u.outChannels);
  for (var o = row; o < end; o += ${stored}) {
    ${unroll(
      stored,
      (x) => `if (o + ${x} < end) {
      let to = (((block * u.outChannels + o + ${x}) * ${side} + i) * 3) * u.quadsOfX + column;
      ${unroll(3, (l) => `parts[to + ${l} * u.quadsOfX] = r${x}_${l};`)}
    }`,
    )}
    ${unroll(rows - stored, (x) => unroll(3, (l) => `r${x}_${l} = r${x + stored}_${l};`))}
  }`)}`,
    grid: walk.grid,
  });
}

/**
 * Returns the step for y[o, c] = Gᵀ of the sum of `count` parts [o][i][l][c], or y plus that if `more`; an invocation computes
 * the nine weights of four input channels.
 */
export function rowTransform(geometry: Geometry, maps: Maps, count: number, more: boolean): Step {
  const {
    x: [ic],
    y: [oc],
  } = geometry;
  const side = maps.size + 2;
  return step({
    name: `winograd${maps.size}.rows${more ? '.more' : ''}`,
    bindings: [read('parts', 'vec4f'), (more ? accumulate : write)('y', 'vec4f')],
    uniforms: [
      ...divisor('quads', ic / 4),
      u32('outChannels', oc),
      u32('part', rowSums(geometry, maps) / 4),
      u32('number', count),
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${QUOTIENT}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let o = quotient(index, u.quads, u.quadsInverse);
  if (o >= u.outChannels) { return; }
  var at = o * ${3 * side - 1} * u.quads + index;
  ${lines(side, (i) => lines(3, (l) => `var p${i}_${l} = parts[at + ${3 * i + l} * u.quads];`, ' '))}
  for (var part = 1u; part < u.number; part++) {
    at += u.part;
    ${lines(side, (i) => lines(3, (l) => `p${i}_${l} += parts[at + ${3 * i + l} * u.quads];`, ' '))}
  }
  ${storeWeights(maps, more)}
}`,
    grid: linearGrid(ceilDiv((oc * ic) / 4, LANES)),
  });
}

/**
 * Returns WGSL that stores the weights `Gᵀ p` of four channels, from the vec4s `p`i`_`l: element f of their weights is tap
 * f % 9 of channel f / 9.
 */
export function storeWeights({ G }: Maps, more: boolean): string {
  const column = (k: number, l: number): string =>
    G.flatMap((row, i) => (row[k] === 0 ? [] : [`${row[k]} * p${i}_${l}`])).join(' + ');
  const weight = (f: number) => `g${f % 9}[${Math.floor(f / 9)}]`;
  return `${lines(3, (k) => lines(3, (l) => `let g${3 * k + l} = ${column(k, l)};`))}
  ${lines(9, (v) => `y[9 * index + ${v}] = ${more ? `y[9 * index + ${v}] + ` : ''}vec4f(${lines(4, (e) => weight(4 * v + e), ', ')});`)}`;
}
