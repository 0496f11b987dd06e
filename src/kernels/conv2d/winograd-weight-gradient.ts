// The gradient of 3x3 weights by Winograd's method: like the forward pass, it multiplies transformed tiles
// place by place.
//
//   y = Aᵀ [(G g Gᵀ) ∘ (Bᵀ d B)] A   so that   dg = Gᵀ [Σ over tiles (A dy Aᵀ) ∘ (Bᵀ d B)] G

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT } from '../device/indexing.ts';
import {
  accumulate,
  ceilDiv,
  LINEAR_GROUP,
  linearGrid,
  linearMain,
  pad4,
  read,
  u32,
  write,
} from '../device/kernel.ts';
import { type Routine, type Step, step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { transpose } from '../elementwise/transpose.ts';
import { gemm } from '../gemm/gemm.ts';
import type { ColumnRange } from './conv2d-passes.ts';
import type { Geometry } from './conv2d-shape.ts';
import { lines, tileCount, tileOf, tileUniforms } from './conv2d-tiles.ts';
import { CONVOLUTIONS } from './families.ts';
import { F4 } from './winograd-maps.ts';
import { inputTransform } from './winograd-transforms.ts';

const LANES = 32;
const SIZE = F4.size;
const SIDE = SIZE + 2;
const PLACES = SIDE ** 2;
/** Bytes of transformed tiles in a pass. */
const PASS_BYTES = 2 ** 25;

/**
 * Returns whether the method applies: 3x3, stride 1, at least 16 channels in multiples of 4 (a place begins
 * on a vec4), and scratch for a block of tiles that can be bound.
 */
export function fitsWinograd(
  { maxBindingBytes }: Capabilities,
  { x: [ic], y: [oc], kernel, stride }: Geometry,
  block: number,
): boolean {
  if (kernel[0] !== 3 || kernel[1] !== 3 || stride !== 1) return false;
  if ([ic, oc].some((channels) => channels < 16 || channels % 4 !== 0)) return false;
  return 4 * PLACES * Math.max(ic * oc, Math.max(ic, oc) * block) <= maxBindingBytes;
}

/**
 * Returns a routine for y of `weightGradient`. It sums tiles in blocks of `block`, one after the other, and
 * then the blocks. A pass transforms the tiles of x and dy, transposes them so that tiles are rows,
 * multiplies them, and transforms back.
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
  const tiles = tileCount(geometry, SIZE);
  const part = PLACES * oc * ic;
  const { maxBindingBytes } = capabilities;
  const bytes = Math.min(PASS_BYTES, maxBindingBytes);
  const blocks = Math.floor(
    Math.min(bytes / (4 * PLACES * Math.max(ic, oc) * block), maxBindingBytes / (4 * part)),
  );
  const most = Math.max(1, blocks) * block;
  const held = pad4(Math.min(most, tiles));
  const steps: Step[] = [];
  for (let first = 0; first < tiles; first += most) {
    const count = Math.min(most, tiles - first);
    const range = { first, count, pitch: held, inPlace: ic * held, outPlace: oc * held };
    const rows = (channels: number) => transpose([PLACES * channels, 1, 1, held], 0, count);
    steps.push(
      inputTransform(capabilities, geometry, F4, range),
      { kernel: rows(ic), operands: ['transformed', 'tilesOfX'] },
      gradientTransform(capabilities, geometry, range),
      { kernel: rows(oc), operands: ['transformed', 'tilesOfDy'] },
    );
    for (let from = 0; from < count; from += block)
      steps.push({
        kernel: gemm(capabilities, {
          m: oc,
          k: Math.min(block, count - from),
          columns: ic,
          batch: [1, PLACES],
          a: { pitch: PLACES * oc, inner: oc, offset: from * PLACES * oc },
          b: { pitch: PLACES * ic, inner: ic, offset: from * PLACES * ic },
          c: { pitch: ic, inner: oc * ic, offset: (from / block) * part },
        }),
        operands: ['tilesOfDy', 'tilesOfX', 'parts'],
      });
    steps.push(weightTransform(geometry, ceilDiv(count, block), first > 0));
  }
  return {
    steps,
    scratch: {
      transformed: 4 * PLACES * Math.max(ic, oc) * held,
      tilesOfX: 4 * PLACES * ic * held,
      tilesOfDy: 4 * PLACES * oc * held,
      parts: 4 * part * ceilDiv(held, block),
    },
    packing: {},
  };
}

/** Returns WGSL for A v of the four values named by `v`, into `to`0..5. */
const spread = (v: (i: number) => string, to: string): string => `
    let ${to}a = ${v(0)} + ${v(2)};
    let ${to}b = ${v(1)} + ${v(3)};
    let ${to}c = ${v(0)} + 4 * ${v(2)};
    let ${to}d = 2 * ${v(1)} + 8 * ${v(3)};
    let ${to}0 = ${v(0)};
    let ${to}1 = ${to}a + ${to}b;
    let ${to}2 = ${to}a - ${to}b;
    let ${to}3 = ${to}c + ${to}d;
    let ${to}4 = ${to}c - ${to}d;
    let ${to}5 = ${v(3)};`;

/** Returns the step for transformed[place][o][tile] = A dy Aᵀ; an invocation transforms one tile of some channels. */
function gradientTransform(
  { family }: Capabilities,
  geometry: Geometry,
  { first, count, pitch: tilePitch, outPlace }: ColumnRange,
): Step {
  const { y } = geometry;
  const each = CONVOLUTIONS[family].channelsEach;
  return step({
    name: 'winograd4.gradient',
    bindings: [read('dy'), write('transformed')],
    uniforms: [
      ...tileUniforms(geometry, SIZE, first, count, LANES),
      u32('channels', y[0]),
      u32('tilePitch', tilePitch),
      u32('placePitch', outPlace),
      u32('dyPitch', pitch(y)),
      u32('height', y[2]),
      u32('width', y[3]),
    ],
    body: /* wgsl */ `${tileOf(LANES, SIZE)}
${linearMain(LANES)}
  let block = channelOf(linearGroup(group, groups));
  let tile = tileOf(linearGroup(group, groups), block, local);
  if (tile.index >= u.tiles) { return; }
  let end = min((block + 1) * ${each}, u.channels);
  let corner = (tile.sample * u.height + tile.top) * u.width + tile.left;
  ${lines(SIZE, (i) => `let in${i} = tile.top + ${i} < u.height; let on${i} = tile.left + ${i} < u.width;`)}
  for (var channel = block * ${each}; channel < end; channel++) {
    let at = channel * u.dyPitch + corner;
    let to = channel * u.tilePitch + tile.index;
    ${lines(SIZE, (i) => lines(SIZE, (j) => `let d${i}_${j} = select(0, dy[select(0, at + ${i} * u.width + ${j}, in${i} && on${j})], in${i} && on${j});`))}
    ${lines(SIZE, (j) => spread((i) => `d${i}_${j}`, `r${j}_`))}
    ${lines(SIDE, (i) => spread((j) => `r${j}_${i}`, `q${i}_`))}
    ${lines(SIDE, (i) => lines(SIDE, (j) => `transformed[to + ${i * SIDE + j} * u.placePitch] = q${i}_${j};`))}
  }
}`,
    grid: linearGrid(ceilDiv(count, LANES) * ceilDiv(y[0], each)),
  });
}

/**
 * Returns the step for y[o, c] = Gᵀ U G of the sum U of `count` parts [place][o][c], or y plus that if
 * `more`; an invocation computes nine weights.
 */
function weightTransform({ x: [ic], y: [oc] }: Geometry, count: number, more: boolean): Step {
  const column = (k: number, value: (i: number) => string): string =>
    F4.G.flatMap((row, i) => (row[k] === 0 ? [] : [`${row[k]} * ${value(i)}`])).join(' + ');
  return step({
    name: `winograd4.weights${more ? '.more' : ''}`,
    bindings: [read('parts'), (more ? accumulate : write)('y')],
    uniforms: [
      ...divisor('channels', ic),
      u32('outChannels', oc),
      u32('place', oc * ic),
      u32('number', count),
      u32('yPitch', 9 * ic),
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${QUOTIENT}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let o = quotient(index, u.channels, u.channelsInverse);
  if (o >= u.outChannels) { return; }
  ${lines(PLACES, (k) => `var m${k} = 0.0;`, ' ')}
  var at = index;
  for (var part = 0u; part < u.number; part++) {
    ${lines(PLACES, (k) => `m${k} += parts[at]; at += u.place;`)}
  }
  ${lines(3, (k) => lines(SIDE, (j) => `let h${k}_${j} = ${column(k, (i) => `m${i * SIDE + j}`)};`))}
  let to = o * u.yPitch + 9 * (index - o * u.channels);
  ${lines(3, (k) => lines(3, (l) => `y[to + ${3 * k + l}] = ${more ? `y[to + ${3 * k + l}] + ` : ''}${column(l, (j) => `h${k}_${j}`)};`))}
}`,
    grid: linearGrid(ceilDiv(oc * ic, LANES)),
  });
}
