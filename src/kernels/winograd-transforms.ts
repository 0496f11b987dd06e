// The linear maps in front of and behind Winograd's products; see winograd.ts. They are bound by their loads and stores
// (36 + 36 and 36 + 16 a tile), so the group norm's map, bias, embedding and residual cost little here.

import type { ColumnRange } from './conv2d-passes.ts';
import { epilogue, fusedTag, type Geometry, prologue } from './conv2d-shape.ts';
import {
  backward,
  ELEMENTS,
  forward,
  lines,
  tileLoad,
  tileOf,
  tileStore,
  tileUniforms,
  together,
} from './conv2d-tiles.ts';
import type { Capabilities } from './device.ts';
import { ceilDiv, defineKernel, linearGrid, read, u32, write } from './kernel.ts';
import type { Step } from './routine.ts';
import { pitch } from './tensor.ts';

const LANES = 32;

/** Channels of an invocation: where a tile lies is found once for all of them. A GPU wants more invocations instead. */
const channelsEach = ({ family }: Capabilities): number => (family === 'tile' ? 1 : 8);

/** The head of a `main` that does tile `tile` of the channels from `channel` to `end`. */
const tileMain = (each: number): string => /* wgsl */ `@compute @workgroup_size(${LANES}) fn main(
  @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32) {
  let block = channelOf(linearGroup(group, groups));
  let tile = tileOf(linearGroup(group, groups), block, local);
  if (tile.index >= u.tiles) { return; }
  var channel = block * ${each};
  let end = min(channel + ${each}, u.channels);`;

/**
 * transformed[place][c][tile] = Bᵀ d B, with d the 6x6 pixels of act(a x + b) around the tile, zero outside the image.
 * An invocation transforms one tile of some channels.
 */
export function inputTransform(capabilities: Capabilities, geometry: Geometry, range: ColumnRange): Step {
  const each = channelsEach(capabilities);
  const on = prologue(geometry);
  const tile = tileLoad(geometry);
  const kernel = defineKernel({
    name: `winograd.input.${geometry.fused.affine ?? 'bare'}.${tile.element}`,
    bindings: [read('x', tile.element), ...on.bindings, write('transformed')],
    uniforms: [
      ...tileUniforms(geometry, range.first, range.count, LANES),
      u32('channels', geometry.x[0]),
      u32('tilePitch', range.pitch),
      u32('placePitch', range.inPlace),
      ...tile.uniforms,
      ...on.uniforms,
    ],
    body: /* wgsl */ `${tileOf(LANES)}${on.wgsl}
${tileMain(each)}
  ${tile.begin}
  for (; channel < end; channel++) {
    var to = channel * u.tilePitch + tile.index;
    let slope = slopeOf(channel, tile.sample);
    let offset = offsetOf(channel, tile.sample);
    ${tile.load}
    ${lines(6, (j) => forward((i) => `d${i}${j}`, `p${j}`))}
    ${lines(6, (i) => forward((j) => `p${j}${i}`, `q${i}`))}
    ${lines(36, (k) => `transformed[to] = q${Math.floor(k / 6)}${k % 6}; to += u.placePitch;`)}
  }
}`,
    grid: linearGrid(ceilDiv(range.count, LANES) * ceilDiv(geometry.x[0], each)),
  });
  return { kernel, operands: ['x', ...on.operands, 'transformed'] };
}

/**
 * y = Aᵀ m A of the products[place][o][tile], with bias, embedding, residual and scale.
 * An invocation makes one tile of 4x4 pixels of some channels; pixels that lie together are stored together.
 */
export function outputTransform(capabilities: Capabilities, geometry: Geometry, range: ColumnRange): Step {
  const { y, fused } = geometry;
  const each = channelsEach(capabilities);
  const width = together(y[3]);
  const element = ELEMENTS[width];
  const out = epilogue(geometry, element);
  const pixels = (i: number, j: number) => `${element}(${lines(width, (k) => `q${i}${j + k}`, ', ')})`;
  const kernel = defineKernel({
    name: `winograd.output.${fusedTag({ ...fused, affine: undefined })}.${element}`,
    bindings: [read('products'), ...out.bindings, write('y', element)],
    uniforms: [
      ...tileUniforms(geometry, range.first, range.count, LANES),
      u32('channels', y[0]),
      u32('tilePitch', range.pitch),
      u32('placePitch', range.outPlace),
      u32('yPitch', pitch(y)),
      u32('yHeight', y[2]),
      u32('yWidth', y[3]),
      ...out.uniforms,
    ],
    body: /* wgsl */ `${tileOf(LANES)}${out.wgsl}
${tileMain(each)}
  let first = (tile.sample * u.yHeight + tile.top) * u.yWidth + tile.left;
  for (; channel < end; channel++) {
    let place = channel * u.tilePitch + tile.index;
    ${lines(36, (k) => `let m${Math.floor(k / 6)}${k % 6} = products[place + ${k} * u.placePitch];`)}
    ${lines(6, (j) => backward((i) => `m${i}${j}`, `p${j}`))}
    ${lines(4, (i) => backward((j) => `p${j}${i}`, `q${i}`))}
    let add = addend(channel, tile.sample);
    let yAt = channel * u.yPitch + first;
    ${tileStore(width, (i, j) => `y[at] = finished(${pixels(i, j)} + add, at);`)}
  }
}`,
    grid: linearGrid(ceilDiv(range.count, LANES) * ceilDiv(y[0], each)),
  });
  return { kernel, operands: ['products', ...out.operands, 'y'] };
}
