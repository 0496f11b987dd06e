// The linear maps before and after Winograd's products; see winograd.ts. Their loads and stores (36 + 36 and 36 + 16
// per tile of 4x4) take most of the time, so the group norm's map, bias, embedding and residual cost little here.
//
// Versions, on lavapipe (2 cores):
// - The whole tile unrolled. Each load and store takes 12 to 18 instructions per lane, so a tile of 9x9
//   pixels is 100 KB of code and exceeds the instruction cache: 20 ms in a UNet's layers.
// - Three rows or columns per iteration, with all values moved along by three (as here): 13 ms. Moving the
//   values costs less than a tenth of loading them.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, linearGrid, linearMain, read, u32, write } from '../device/kernel.ts';
import { type Step, step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import type { ColumnRange } from './conv2d-passes.ts';
import { epilogue, fusedTag, type Geometry, prologue } from './conv2d-shape.ts';
import { ELEMENTS, lines, tileLoad, tileOf, tileStore, tileUniforms, together } from './conv2d-tiles.ts';
import { CONVOLUTIONS } from './families.ts';
import type { Maps } from './winograd-maps.ts';

const LANES = 32;

/** Returns the head of a `main` that processes tile `tile` of the channels from `channel` to `end`. */
const tileMain = (each: number): string => /* wgsl */ `${linearMain(LANES)}
  let block = channelOf(linearGroup(group, groups));
  let tile = tileOf(linearGroup(group, groups), block, local);
  if (tile.index >= u.tiles) { return; }
  var channel = block * ${each};
  let end = min(channel + ${each}, u.channels);`;

/**
 * Returns the step for transformed[place][c][tile] = Bᵀ d B, where d are the pixels of act(a x + b) under the
 * tile, zero outside the image. An invocation transforms one tile of some channels.
 */
export function inputTransform(
  capabilities: Capabilities,
  geometry: Geometry,
  { size, forward }: Maps,
  range: ColumnRange,
): Step {
  const side = size + 2;
  const each = CONVOLUTIONS[capabilities.family].channelsEach;
  const on = prologue(geometry);
  const tile = tileLoad(geometry, size);
  return step({
    name: `winograd${size}.input.${geometry.fused.affine ?? 'bare'}.${tile.element}`,
    bindings: [read('x', tile.element), ...on.bindings, write('transformed')],
    uniforms: [
      ...tileUniforms(geometry, size, range.first, range.count, LANES),
      u32('channels', geometry.x[0]),
      u32('tilePitch', range.pitch),
      u32('placePitch', range.inPlace),
      ...tile.uniforms,
      ...on.uniforms,
    ],
    body: /* wgsl */ `${tileOf(LANES, size)}${on.wgsl}
${tileMain(each)}
  ${tile.begin}
  for (; channel < end; channel++) {
    var to = channel * u.tilePitch + tile.index;
    let slope = slopeOf(channel, tile.sample);
    let offset = offsetOf(channel, tile.sample);
    ${lines(side, (i) => lines(side, (j) => `var p${i}_${j} = 0.0;`, ' '))}
    for (var row = 0u; row < ${side}; row += 3) {
      ${lines(3, (i) => `${tile.row(i, `row + ${i}`)}\n${forward((j) => `d${i}_${j}`, `r${i}_`)}`)}
      ${lines(side, (i) => lines(side, (j) => `p${i}_${j} = ${i + 3 < side ? `p${i + 3}_${j}` : `r${i + 3 - side}_${j}`};`, ' '))}
    }
    for (var column = 0u; column < ${side}; column += 3) {
      ${lines(3, (j) => forward((i) => `p${i}_${j}`, `q${j}_`))}
      ${lines(3, (j) => lines(side, (i) => `transformed[to + ${i * side + j} * u.placePitch] = q${j}_${i};`))}
      to += 3 * u.placePitch;
      ${lines(side, (i) => lines(side - 3, (j) => `p${i}_${j} = p${i}_${j + 3};`, ' '))}
    }
  }
}`,
    grid: linearGrid(ceilDiv(range.count, LANES) * ceilDiv(geometry.x[0], each)),
  });
}

/**
 * Returns the step for y = Aᵀ m A of products[place][o][tile], with bias, embedding, residual and scale. An invocation
 * computes one tile of some channels; pixels that are adjacent in storage are stored as vectors.
 */
export function outputTransform(
  capabilities: Capabilities,
  geometry: Geometry,
  { size, backward }: Maps,
  range: ColumnRange,
): Step {
  const { y, fused } = geometry;
  const side = size + 2;
  const each = CONVOLUTIONS[capabilities.family].channelsEach;
  const width = together(y[3], size);
  const element = ELEMENTS[width];
  const out = epilogue(geometry, element);
  const pixels = (i: number, j: number) => `${element}(${lines(width, (k) => `q${j + k}_${i}`, ', ')})`;
  return step({
    name: `winograd${size}.output.${fusedTag({ ...fused, affine: undefined })}.${element}`,
    bindings: [read('products'), ...out.bindings, write('y', element)],
    uniforms: [
      ...tileUniforms(geometry, size, range.first, range.count, LANES),
      u32('channels', y[0]),
      u32('tilePitch', range.pitch),
      u32('placePitch', range.outPlace),
      u32('yPitch', pitch(y)),
      u32('yHeight', y[2]),
      u32('yWidth', y[3]),
      ...out.uniforms,
    ],
    body: /* wgsl */ `${tileOf(LANES, size)}${out.wgsl}
${tileMain(each)}
  let first = (tile.sample * u.yHeight + tile.top) * u.yWidth + tile.left;
  for (; channel < end; channel++) {
    var place = channel * u.tilePitch + tile.index;
    ${lines(side, (i) => lines(size, (j) => `var p${i}_${j} = 0.0;`, ' '))}
    for (var row = 0; row < ${side}; row += 3) {
      ${lines(3, (i) => lines(side, (j) => `let m${i}_${j} = products[place + ${i * side + j} * u.placePitch];`))}
      place += ${3 * side} * u.placePitch;
      ${lines(3, (i) => backward((j) => `m${i}_${j}`, `r${i}_`))}
      ${lines(side, (i) => lines(size, (j) => `p${i}_${j} = ${i + 3 < side ? `p${i + 3}_${j}` : `r${i + 3 - side}_${j}`};`, ' '))}
    }
    ${lines(size, (j) => backward((i) => `p${i}_${j}`, `q${j}_`))}
    let add = addend(channel, tile.sample);
    let yAt = channel * u.yPitch + first;
    ${tileStore(size, width, (i, j) => `y[at] = finished(${pixels(i, j)} + add, at);`)}
  }
}`,
    grid: linearGrid(ceilDiv(range.count, LANES) * ceilDiv(y[0], each)),
  });
}
