// 3x3 convolution of stride 1 for few output channels: Winograd's F(4, 3) along the rows and the direct sum along the
// columns. It takes 72 products per 4x4 tile, while the direct sum has 144, and keeps no transformed tiles in memory.
//
// With 16 channels, storing and loading the transformed tiles of F(4x4, 3x3) costs more than the saved
// products: on a software adapter a load by 8 lanes costs as much as 10 to 15 of their products. The full
// F(4x4, 3x3) in registers would need 36 accumulators and 36 weights per channel; this form needs 24 and 18.
//
// 16 -> 16 channels at 28x28, n = 64, on 2 cores of lavapipe: 4.7 ms; F(4x4, 3x3) through memory takes 6.3. With 8
// lanes, multiplying the weights by 1 (see gemm-subgroup.ts) costs 8 % on Mesa 25.0.7 and changes nothing on Mesa 26.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, f32, linearGrid, linearMain, read, u32, write } from '../device/kernel.ts';
import { type Packing, type Routine, type Step, step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { paddedPlane, paddedRow, padInput, type SampleRange } from './conv2d-padded.ts';
import { epilogue, fusedTag, type Geometry } from './conv2d-shape.ts';
import { ELEMENTS, lines, tileCount, tileOf, tileStore, tileUniforms, together } from './conv2d-tiles.ts';
import { F4 } from './winograd-maps.ts';

const { size: SIZE, G, forward, backward } = F4;

/** Weights of one input and output channel: 3 rows of 6 transformed columns. */
const TAPS = 18;

/** Returns the vec4s of weights that a lane loads for an input channel. */
const loadsOf = (lanes: number, outs: number): number => ceilDiv(TAPS * outs, 4 * lanes);

/**
 * Packs weights as [block of outs][ic][column place][kernel row][outs]; each input channel is padded to whole loads.
 */
function packFused({ x: [ic], y: [oc] }: Geometry, lanes: number, outs: number): Packing {
  const blocks = ceilDiv(oc, outs);
  const each = 4 * lanes * loadsOf(lanes, outs);
  return {
    key: `winograd.fused.${oc}x${ic}.${outs}x${lanes}`,
    bytes: 4 * blocks * ic * each,
    dtype: 'f32',
    row: 9 * ic,
    place: (values, from, packed) => {
      const out = new Float32Array(packed);
      const first = from / (9 * ic);
      const end = first + values.length / (9 * ic);
      for (let o = first; o < end; o++)
        for (let c = 0; c < ic; c++)
          for (let row = 0; row < 3; row++) {
            const g = ((o - first) * ic + c) * 9 + row * 3;
            const to = (Math.floor(o / outs) * ic + c) * each + row * outs + (o % outs);
            G.forEach(([g0, g1, g2], place) => {
              out[to + place * 3 * outs] = g0! * values[g]! + g1! * values[g + 1]! + g2! * values[g + 2]!;
            });
          }
    },
  };
}

/** Bytes of padded input per pass, few enough that the second kernel of the pass finds them in the caches. */
const PASS_BYTES = 2 ** 22;

/** Returns the bytes of the padded input of some samples, which is bound at once. */
export const paddedBytes = (geometry: Geometry, samples: number): number =>
  16 * geometry.x[0] * paddedPlane(geometry, samples);

/** Returns the routine for a 3x3 kernel, stride 1 and padding 1 on each side. */
export function fusedConv2d({ subgroupSize: lanes }: Capabilities, geometry: Geometry): Routine {
  const { x, y } = geometry;
  const outs = y[0] <= 4 ? 4 : 16;
  const bytes = (samples: number) => paddedBytes(geometry, samples);
  const most = Math.max(1, ceilDiv(x[1], ceilDiv(bytes(x[1]), PASS_BYTES)));
  const steps: Step[] = [];
  for (let first = 0; first < x[1]; first += most) {
    const range = { first, count: Math.min(most, x[1] - first) };
    steps.push(padInput(geometry, range), fusedStep(geometry, range, lanes, outs));
  }
  return { steps, scratch: { padded: bytes(most) }, packing: { weight: packFused(geometry, lanes, outs) } };
}

/**
 * Returns the step that computes y from `padded`. A lane computes one 4x4 tile of `outs` output channels in
 * registers. Per input channel it loads the 6x6 pixels and its share of the weights, which are then broadcast
 * from lane to lane. An accumulator holds the four rows of the tile for one channel and place along the row.
 */
function fusedStep(geometry: Geometry, { first, count }: SampleRange, lanes: number, outs: number): Step {
  const { x, y, fused } = geometry;
  const loads = loadsOf(lanes, outs);
  const one = lanes === 16 ? ' * u.one' : ''; // for a cheap broadcast, see gemm-subgroup.ts
  const width = together(y[3], SIZE);
  const element = ELEMENTS[width];
  const out = epilogue(geometry, element);
  const perImage = tileCount(geometry, SIZE) / x[1];
  const blocks = ceilDiv(y[0], outs);
  const weight = (place: number, row: number, o: number) => {
    const e = (place * 3 + row) * outs + o;
    return `vec4f(subgroupBroadcast(w${Math.floor(e / (4 * lanes))}[${e % 4}], ${Math.floor(e / 4) % lanes}u))`;
  };
  const pixels = (i: number, j: number) =>
    `${element}(${lines(width, (k) => `sums[o][${j + k}][${i}]`, ', ')})`;
  return step({
    name: `winograd.fused.${outs}.${fusedTag({ ...fused, affine: undefined })}.${element}`,
    enable: ['subgroups'],
    bindings: [read('padded', 'vec4f'), read('weight', 'vec4f'), ...out.bindings, write('y', element)],
    uniforms: [
      ...tileUniforms(geometry, SIZE, first * perImage, count * perImage, lanes),
      u32('blocks', blocks),
      f32('one', 1),
      u32('channels', x[0]),
      u32('outChannels', y[0]),
      u32('firstSample', first),
      u32('row', paddedRow(geometry)),
      u32('plane', paddedPlane(geometry, count)),
      u32('yPitch', pitch(y) / width),
      u32('yHeight', y[2]),
      u32('yWidth', y[3]),
      ...out.uniforms,
    ],
    body: /* wgsl */ `${tileOf(lanes, SIZE)}${out.wgsl}
${linearMain(lanes)}
  let block = channelOf(linearGroup(group, groups));
  if (block >= u.blocks) { return; }
  let tile = tileOf(linearGroup(group, groups), block, local);
  ${lines(outs, (o) => lines(6, (f) => `var m${o}_${f} = vec4f();`))}
  var from0 = ((tile.sample - u.firstSample) * (u.yHeight + 1) + tile.top) * u.row + tile.left / 4 + 1;
  var from1 = block * u.channels * ${lanes * loads} + local;
  for (var channel = 0u; channel < u.channels; channel++) {
    ${lines(loads, (k) => `let w${k} = weight[from1 + ${k * lanes}]${one};`)}
    from1 += ${lanes * loads};
    ${lines(
      6,
      (i) => `let mid${i} = padded[from0 + ${i} * u.row];
    let d${i}0 = padded[from0 + ${i} * u.row - 1].w;
    let d${i}5 = padded[from0 + ${i} * u.row + 1].x;
    ${forward((j) => (j === 0 || j === 5 ? `d${i}${j}` : `mid${i}[${j - 1}]`), `p${i}`)}`,
    )}
    from0 += u.plane;
    ${lines(6, (f) => lines(3, (r) => `let v${f}_${r} = vec4f(p${r}${f}, p${r + 1}${f}, p${r + 2}${f}, p${r + 3}${f});`))}
    ${lines(6, (f) =>
      lines(
        outs,
        (o) =>
          `m${o}_${f} = fma(${weight(f, 2, o)}, v${f}_2, fma(${weight(f, 1, o)}, v${f}_1, fma(${weight(f, 0, o)}, v${f}_0, m${o}_${f})));`,
      ),
    )}
  }
  if (tile.index >= u.tiles) { return; }
  var sums: array<array<vec4f, 4>, ${outs}>;
  ${lines(
    outs,
    (o) => `${backward((f) => `m${o}_${f}`, `s${o}_`)}
  ${lines(4, (j) => `sums[${o}][${j}] = s${o}_${j};`)}`,
  )}
  let channel = block * ${outs};
  let count = min(u.outChannels - channel, ${outs});
  let yAt = (tile.sample * u.yHeight + tile.top) * u.yWidth + tile.left;
  var rows = channel * u.yPitch;
  for (var o = 0u; o < count; o++) {
    let add = addend(channel + o, tile.sample);
    ${tileStore(SIZE, width, (i, j) => `y[rows + at] = finished(${pixels(i, j)} + add, rows + at);`)}
    rows += u.yPitch;
  }
}`,
    grid: linearGrid(ceilDiv(count * perImage, lanes) * blocks),
  });
}
