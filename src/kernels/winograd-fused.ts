// 3x3 convolution of stride 1 in one kernel, for few output channels: Winograd's F(4, 3) along the rows and the
// direct sum along the columns, 72 products a 4x4 tile where the direct sum has 144.

import { epilogue, fusedTag, type Geometry, prologue } from './conv2d-shape.ts';
import {
  backward,
  ELEMENTS,
  forward,
  lines,
  tileCount,
  tileLoad,
  tileOf,
  tileStore,
  tileUniforms,
  together,
} from './conv2d-tiles.ts';
import type { Capabilities } from './device.ts';
import { ceilDiv, defineKernel, linearGrid, read, u32, write } from './kernel.ts';
import type { Packing, Routine } from './routine.ts';
import { pitch } from './tensor.ts';
import { G } from './winograd.ts';

/** Weights of one input and output channel: 3 rows of 6 transformed columns. */
const TAPS = 18;

/** Vec4s of weights that a lane loads for an input channel. */
const loadsOf = (lanes: number, outs: number): number => ceilDiv(TAPS * outs, 4 * lanes);

/** Weights [block of outs][ic][column place][kernel row][outs], each input channel's padded to whole loads. */
function packFused({ x: [ic], y: [oc] }: Geometry, lanes: number, outs: number): Packing {
  const blocks = ceilDiv(oc, outs);
  const each = 4 * lanes * loadsOf(lanes, outs);
  return {
    key: `winograd.fused.${oc}x${ic}.${outs}x${lanes}`,
    bytes: 4 * blocks * ic * each,
    pack: (values) => {
      const out = new Float32Array(blocks * ic * each);
      for (let o = 0; o < oc; o++)
        for (let c = 0; c < ic; c++)
          for (let row = 0; row < 3; row++) {
            const g = (o * ic + c) * 9 + row * 3;
            const to = (Math.floor(o / outs) * ic + c) * each + row * outs + (o % outs);
            G.forEach(([g0, g1, g2], place) => {
              out[to + place * 3 * outs] = g0! * values[g]! + g1! * values[g + 1]! + g2! * values[g + 2]!;
            });
          }
      return out;
    },
  };
}

/**
 * A lane computes one 4x4 tile of `outs` output channels, all in registers: per input channel it loads the 6x6 pixels
 * once and its share of the weights, which are then broadcast from lane to lane. Its accumulators hold, for a channel
 * and place along the row, the four rows of the tile.
 */
export function winogradFused({ subgroupSize: lanes }: Capabilities, geometry: Geometry): Routine {
  const { x, y, fused } = geometry;
  const outs = y[0] <= 4 ? 4 : 16;
  const loads = loadsOf(lanes, outs);
  const on = prologue(geometry);
  const tile = tileLoad(geometry);
  const width = together(y[3]);
  const element = ELEMENTS[width];
  const out = epilogue(geometry, element);
  const tiles = tileCount(geometry);
  const blocks = ceilDiv(y[0], outs);
  const weight = (place: number, row: number, o: number) => {
    const e = (place * 3 + row) * outs + o;
    return `subgroupBroadcast(w${Math.floor(e / (4 * lanes))}[${e % 4}], ${Math.floor(e / 4) % lanes}u)`;
  };
  const pixels = (o: number, i: number, j: number) =>
    `${element}(${lines(width, (k) => `r${o}_${j + k}[${i}]`, ', ')})`;
  const kernel = defineKernel({
    name: `winograd.fused.${outs}.${fusedTag(fused)}.${tile.element}.${element}`,
    enable: ['subgroups'],
    bindings: [
      read('x', tile.element),
      read('weight', 'vec4f'),
      ...on.bindings,
      ...out.bindings,
      write('y', element),
    ],
    uniforms: [
      ...tileUniforms(geometry, 0, tiles, lanes),
      u32('blocks', blocks),
      u32('channels', x[0]),
      u32('outChannels', y[0]),
      ...tile.uniforms,
      u32('yPitch', pitch(y)),
      u32('yHeight', y[2]),
      u32('yWidth', y[3]),
      ...on.uniforms,
      ...out.uniforms,
    ],
    body: /* wgsl */ `${tileOf(lanes)}${on.wgsl}${out.wgsl}
@compute @workgroup_size(${lanes}) fn main(
  @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32) {
  let block = channelOf(linearGroup(group, groups));
  if (block >= u.blocks) { return; }
  let tile = tileOf(linearGroup(group, groups), block, local);
  ${tile.begin}
  ${lines(outs, (o) => lines(6, (f) => `var m${o}_${f} = vec4f();`))}
  var at = block * u.channels * ${lanes * loads} + local;
  for (var channel = 0u; channel < u.channels; channel++) {
    let slope = slopeOf(channel, tile.sample);
    let offset = offsetOf(channel, tile.sample);
    ${lines(loads, (k) => `let w${k} = weight[at + ${k * lanes}];`)}
    at += ${lanes * loads};
    ${tile.load}
    ${lines(6, (i) => forward((j) => `d${i}${j}`, `p${i}`))}
    ${lines(6, (f) => lines(3, (r) => `let v${f}_${r} = vec4f(p${r}${f}, p${r + 1}${f}, p${r + 2}${f}, p${r + 3}${f});`))}
    ${lines(6, (f) =>
      lines(
        outs,
        (o) =>
          `m${o}_${f} = fma(vec4f(${weight(f, 2, o)}), v${f}_2, fma(vec4f(${weight(f, 1, o)}), v${f}_1, fma(vec4f(${weight(f, 0, o)}), v${f}_0, m${o}_${f})));`,
      ),
    )}
  }
  if (tile.index >= u.tiles) { return; }
  let first = block * ${outs};
  let yAt = (tile.sample * u.yHeight + tile.top) * u.yWidth + tile.left;
  ${lines(
    outs,
    (o) => `${backward((f) => `m${o}_${f}`, `s${o}_`)}
  let add${o} = addend(min(first + ${o}, u.outChannels - 1), tile.sample);
  ${lines(4, (j) => `let r${o}_${j} = s${o}_${j} + add${o};`)}`,
  )}
  ${tileStore(width, (i, j) =>
    lines(
      outs,
      (o) => `if (first + ${o} < u.outChannels) {
        let to = at + (first + ${o}) * (u.yPitch / ${width});
        y[to] = finished(${pixels(o, i, j)}, to);
      }`,
    ),
  )}
}`,
    grid: linearGrid(ceilDiv(tiles, lanes) * blocks),
  });
  return {
    steps: [{ kernel, operands: ['x', 'weight', ...on.operands, ...out.operands, 'y'] }],
    scratch: {},
    packing: { weight: packFused(geometry, lanes, outs) },
  };
}
