// The linear maps in front of and behind Winograd's products; see winograd.ts.

import type { ColumnRange } from './conv2d-passes.ts';
import { epilogue, fusedTag, type Geometry, prologue } from './conv2d-shape.ts';
import { divisor, QUOTIENT } from './indexing.ts';
import { ceilDiv, defineKernel, LINEAR_GROUP, linearGrid, read, type Uniform, u32, write } from './kernel.ts';
import type { Step } from './routine.ts';
import { pitch } from './tensor.ts';

const LANES = 32;

/** Uniforms of `tileOf`, which finds channel and tile of an invocation. */
function tileUniforms(
  { y }: Geometry,
  channels: number,
  rows: number,
  { first, count, pitch }: ColumnRange,
): Uniform[] {
  const across = ceilDiv(y[3], 4);
  return [
    ...divisor('groupsAcross', ceilDiv(count, LANES)),
    ...divisor('tilesPerImage', across * ceilDiv(y[2], 4)),
    ...divisor('tilesAcross', across),
    u32('channels', channels),
    u32('firstTile', first),
    u32('tiles', count),
    u32('tilePitch', pitch),
    u32('placePitch', rows * pitch),
  ];
}

const TILE_OF = /* wgsl */ `${QUOTIENT}${LINEAR_GROUP}
struct Tile { channel: u32, index: u32, sample: u32, top: u32, left: u32 }
fn tileOf(group: u32, local: u32) -> Tile {
  let channel = quotient(group, u.groupsAcross, u.groupsAcrossInverse);
  let index = (group - channel * u.groupsAcross) * ${LANES} + local;
  let tile = u.firstTile + min(index, u.tiles - 1);
  let sample = quotient(tile, u.tilesPerImage, u.tilesPerImageInverse);
  let place = tile - sample * u.tilesPerImage;
  let row = quotient(place, u.tilesAcross, u.tilesAcrossInverse);
  return Tile(channel, index, sample, 4 * row, 4 * (place - row * u.tilesAcross));
}
`;

const lines = (count: number, line: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => line(i)).join('\n  ');

/** Bᵀ d of six values named by `d`, into `to`0..5. */
const forward = (d: (i: number) => string, to: string): string => `
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
const backward = (m: (i: number) => string, to: string): string => `
  let ${to}a = ${m(1)} + ${m(2)};
  let ${to}b = ${m(1)} - ${m(2)};
  let ${to}c = ${m(3)} + ${m(4)};
  let ${to}d = ${m(3)} - ${m(4)};
  let ${to}0 = ${m(0)} + ${to}a + ${to}c;
  let ${to}1 = ${to}b + 2 * ${to}d;
  let ${to}2 = ${to}a + 4 * ${to}c;
  let ${to}3 = ${to}b + 8 * ${to}d + ${m(5)};`;

/**
 * transformed[place][c][tile] = Bᵀ d B, with d the 6x6 pixels of act(a x + b) around the tile, zero outside the image.
 * An invocation transforms one tile of one channel.
 */
export function inputTransform(geometry: Geometry, range: ColumnRange): Step {
  const { x, top, left, fused } = geometry;
  const on = prologue(geometry);
  const kernel = defineKernel({
    name: `winograd.input.${fused.affine ?? 'bare'}`,
    bindings: [read('x'), ...on.bindings, write('transformed')],
    uniforms: [
      ...tileUniforms(geometry, range.inRows, range.inRows, range),
      u32('inChannels', x[0]),
      u32('xPitch', pitch(x)),
      u32('xHeight', x[2]),
      u32('xWidth', x[3]),
      u32('top', top),
      u32('left', left),
      ...on.uniforms,
    ],
    body: /* wgsl */ `${TILE_OF}${on.wgsl}
@compute @workgroup_size(${LANES}) fn main(
  @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32) {
  let tile = tileOf(linearGroup(group, groups), local);
  if (tile.channel >= u.channels || tile.index >= u.tiles) { return; }
  let slope = slopeOf(tile.channel, tile.sample);
  let offset = offsetOf(tile.channel, tile.sample);
  let top = tile.top - u.top; // above or left of the image these wrap to huge numbers
  let left = tile.left - u.left;
  let plane = tile.channel * u.xPitch + tile.sample * u.xHeight * u.xWidth;
  ${lines(6, (j) => `let in${j} = left + ${j} < u.xWidth && tile.channel < u.inChannels;`)}
  ${lines(
    6,
    (i) => `let line${i} = plane + (top + ${i}) * u.xWidth + left;
  let on${i} = top + ${i} < u.xHeight;
  ${lines(6, (j) => `let d${i}${j} = select(0, mapped1(x[select(0, line${i} + ${j}, on${i} && in${j})], slope, offset), on${i} && in${j});`)}`,
  )}
  ${lines(6, (j) => forward((i) => `d${i}${j}`, `p${j}`))}
  ${lines(6, (i) => forward((j) => `p${j}${i}`, `q${i}`))}
  var to = tile.channel * u.tilePitch + tile.index;
  ${lines(36, (k) => `transformed[to] = q${Math.floor(k / 6)}${k % 6}; to += u.placePitch;`)}
}`,
    grid: linearGrid(ceilDiv(range.count, LANES) * range.inRows),
  });
  return { kernel, operands: ['x', ...on.operands, 'transformed'] };
}

/**
 * y = Aᵀ m A of the products[place][o][tile], with bias, embedding, residual and scale.
 * An invocation makes one tile of 4x4 pixels of one channel; rows that start on vec4s are stored as vec4s.
 */
export function outputTransform(geometry: Geometry, range: ColumnRange): Step {
  const { y, fused } = geometry;
  const aligned = y[3] % 4 === 0;
  const element = aligned ? 'vec4f' : 'f32';
  const out = epilogue(geometry, element);
  const store = aligned
    ? (i: number) => `if (tile.top + ${i} < u.yHeight) {
    let at = (line + ${i} * u.yWidth) / 4;
    y[at] = finished(vec4f(q${i}0, q${i}1, q${i}2, q${i}3) + add, at);
  }`
    : (i: number) => `if (tile.top + ${i} < u.yHeight) {
    let at = line + ${i} * u.yWidth;
    ${lines(4, (j) => `if (tile.left + ${j} < u.yWidth) { y[at + ${j}] = finished(q${i}${j} + add, at + ${j}); }`)}
  }`;
  const kernel = defineKernel({
    name: `winograd.output.${fusedTag({ ...fused, affine: undefined })}${aligned ? '.aligned' : ''}`,
    bindings: [read('products'), ...out.bindings, write('y', element)],
    uniforms: [
      ...tileUniforms(geometry, y[0], range.outRows, range),
      u32('yPitch', pitch(y)),
      u32('yHeight', y[2]),
      u32('yWidth', y[3]),
      ...out.uniforms,
    ],
    body: /* wgsl */ `${TILE_OF}${out.wgsl}
@compute @workgroup_size(${LANES}) fn main(
  @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32) {
  let tile = tileOf(linearGroup(group, groups), local);
  if (tile.channel >= u.channels || tile.index >= u.tiles) { return; }
  let place = tile.channel * u.tilePitch + tile.index;
  ${lines(36, (k) => `let m${Math.floor(k / 6)}${k % 6} = products[place + ${k} * u.placePitch];`)}
  ${lines(6, (j) => backward((i) => `m${i}${j}`, `p${j}`))}
  ${lines(4, (i) => backward((j) => `p${j}${i}`, `q${i}`))}
  let add = addend(tile.channel, tile.sample);
  let line = tile.channel * u.yPitch + (tile.sample * u.yHeight + tile.top) * u.yWidth + tile.left;
  ${lines(4, store)}
}`,
    grid: linearGrid(ceilDiv(range.count, LANES) * y[0]),
  });
  return { kernel, operands: ['products', ...out.operands, 'y'] };
}
