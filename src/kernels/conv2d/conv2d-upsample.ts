// 3x3 convolution after a nearest-neighbour enlargement to twice the size, computed on the small image: 9
// products per pixel of x, while the direct sum has 36 (for 4 pixels of y).
//
// In one dimension, with weights g0 g1 g2 and G = g0 + g1 + g2, the two outputs of pixel i are
//   y[2i]     = g0 x[i-1] + (g1 + g2) x[i]  =  G x[i] + g0 (x[i-1] - x[i])
//   y[2i + 1] = (g0 + g1) x[i] + g2 x[i+1]  =  G x[i] + g2 (x[i+1] - x[i])
// which takes three products, because both outputs share G x[i]. In two dimensions these are the 9 places (a,
// b) of
//   products = (R g Rᵀ) ∘ (D x Dᵀ),   y[2i + p][2j + q] = the sum of the places {0, 1 + p} x {0, 1 + q},
// with the rows of R: (1 1 1), (1 0 0), (0 0 1) and of D, on x[i-1], x[i], x[i+1]: (0 1 0), (1 -1 0), (0 -1
// 1). The maps are sums and differences, which lose few digits, and small images leave no tile partly empty.
// The number of products equals that of Winograd's F(4x4, 3x3) on the enlarged image. On 2 cores of a
// software adapter, n = 64, in GFLOP/s of the direct sum: 83 for 32 channels from 14x14, 126 for 64 and 147
// for 96 from 7x7 (bench/kernels.ts, `conv2d`).

import type { Capabilities } from '../device/device.ts';
import { divisor } from '../device/indexing.ts';
import { ceilDiv, LINEAR_GROUP, linearGrid, linearMain, read, u32, write } from '../device/kernel.ts';
import { type Routine, type Step, step } from '../device/routine.ts';
import { columns, pitch } from '../device/tensor.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import { type ColumnRange, inPasses } from './conv2d-passes.ts';
import { COLUMN_PLACE, columnUniforms, epilogue, fusedTag, type Geometry, prologue } from './conv2d-shape.ts';
import { CONVOLUTIONS } from './families.ts';

const LANES = 32;

const R: readonly (readonly number[])[] = [
  [1, 1, 1],
  [1, 0, 0],
  [0, 0, 1],
];

/** Returns the routine for `upsample: 2`, a 3x3 kernel, stride 1 and padding 1 on each side. */
export function upsampledConv2d(capabilities: Capabilities, geometry: Geometry): Routine {
  return inPasses(capabilities, geometry, {
    columns: columns(geometry.x),
    weights: R,
    input: (range) => inputTransform(capabilities, geometry, range),
    output: (range) => outputTransform(capabilities, geometry, range),
  });
}

/**
 * Uniforms of `vectorMain`, the head of a `main` that processes 4 columns from `column` on, of channels
 * `channel` to `end`.
 */
const vectorUniforms = (
  { x }: Geometry,
  channels: number,
  placePitch: number,
  { first, count, pitch }: ColumnRange,
) => [
  ...columnUniforms(x),
  ...divisor('vectors', ceilDiv(count, 4)),
  u32('channels', channels),
  u32('first', first),
  u32('rowVectors', pitch / 4),
  u32('placeVectors', placePitch / 4),
];

const vectorMain = (each: number): string => /* wgsl */ `${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let block = quotient(index, u.vectors, u.vectorsInverse);
  let vector = index - block * u.vectors;
  var channel = block * ${each};
  let end = min(channel + ${each}, u.channels);
  if (channel >= end) { return; }
  let column = u.first + 4 * vector;
  ${unroll(4, (k) => `let at${k} = placeOf(column + ${k});`)}
  let n = vec4u(at0.x, at1.x, at2.x, at3.x);
  let row = vec4u(at0.y, at1.y, at2.y, at3.y);
  let col = vec4u(at0.z, at1.z, at2.z, at3.z);`;

/**
 * Returns the step for transformed[a, b][c][p] = D x Dᵀ around pixel p; an invocation does 4 pixels of some channels.
 */
function inputTransform(capabilities: Capabilities, geometry: Geometry, range: ColumnRange): Step {
  const { x, fused } = geometry;
  const each = CONVOLUTIONS[capabilities.family].channelsEach;
  const on = prologue(geometry);
  const line = (name: string, shift: string, ok: string) => /* wgsl */ `
  let ${name}At = base + ${shift};
  let ${name}Raw = vec4f(${unroll(4, (k) => `x[clamp(${name}At + ${k}, 0, u.last)]${k < 3 ? ',' : ''}`)});
  let ${name}Before = x[clamp(${name}At - 1, 0, u.last)];
  let ${name}Behind = x[clamp(${name}At + 4, 0, u.last)];
  let ${name} = select(vec4f(), mapped(${name}Raw, slope, offset), ${ok});
  let ${name}Left = select(vec4f(), mapped(vec4f(${name}Before, ${name}Raw.xyz), slope, offset), ${ok} & notLeft) - ${name};
  let ${name}Right = select(vec4f(), mapped(vec4f(${name}Raw.yzw, ${name}Behind), slope, offset), ${ok} & notRight) - ${name};`;
  return step({
    name: `upsample.input.${fused.affine ?? 'bare'}`,
    bindings: [read('x'), ...on.bindings, write('transformed', 'vec4f')],
    uniforms: [
      ...vectorUniforms(geometry, x[0], range.inPlace, range),
      u32('height', x[2]),
      u32('xPitch', pitch(x)),
      { name: 'last', type: 'i32', value: x[0] * pitch(x) - 1 },
      ...on.uniforms,
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${COLUMN_PLACE}${on.wgsl}
${vectorMain(each)}
  let notTop = row > vec4u(0);
  let notBottom = row < vec4u(u.height - 1);
  let notLeft = col > vec4u(0);
  let notRight = col < vec4u(u.width - 1);
  for (; channel < end; channel++) {
    let slope = vec4f(${unroll(4, (k) => `slopeOf(channel, n[${k}])${k < 3 ? ',' : ''}`)});
    let offset = vec4f(${unroll(4, (k) => `offsetOf(channel, n[${k}])${k < 3 ? ',' : ''}`)});
    let base = i32(channel * u.xPitch + column);
    ${line('mid', '0', 'vec4<bool>(true)')}
    ${line('up', '-i32(u.width)', 'notTop')}
    ${line('down', 'i32(u.width)', 'notBottom')}
    var to = channel * u.rowVectors + vector;
    ${['', 'Left', 'Right'].map((b) => `transformed[to] = mid${b}; to += u.placeVectors;`).join('\n    ')}
    ${['', 'Left', 'Right'].map((b) => `transformed[to] = up${b} - mid${b}; to += u.placeVectors;`).join('\n    ')}
    ${['', 'Left', 'Right'].map((b) => `transformed[to] = down${b} - mid${b}; to += u.placeVectors;`).join('\n    ')}
  }
}`,
    grid: linearGrid(ceilDiv(ceilDiv(range.count, 4) * ceilDiv(x[0], each), LANES)),
  });
}

/**
 * Returns the step for y from the 9 products, with the fused output map; an invocation does 4 times 2x2
 * pixels of some channels.
 */
function outputTransform(capabilities: Capabilities, geometry: Geometry, range: ColumnRange): Step {
  const { x, y, fused } = geometry;
  const each = CONVOLUTIONS[capabilities.family].channelsEach;
  const out = epilogue(geometry, 'vec2f');
  const pixel = (k: number) => /* wgsl */ `if (column + ${k} < u.columns) {
    ${fused.embedding ? `let add = addend(channel, n[${k}]);` : ''}
    let at = channel * u.yVectors + pixel${k};
    y[at] = finished(vec2f(y00[${k}], y01[${k}]) + add, at);
    y[at + u.width] = finished(vec2f(y10[${k}], y11[${k}]) + add, at + u.width);
  }`;
  return step({
    name: `upsample.output.${fusedTag({ ...fused, affine: undefined })}`,
    bindings: [read('products', 'vec4f'), ...out.bindings, write('y', 'vec2f')],
    uniforms: [
      ...vectorUniforms(geometry, y[0], range.outPlace, range),
      u32('height', x[2]),
      u32('yVectors', pitch(y) / 2),
      ...out.uniforms,
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${COLUMN_PLACE}${out.wgsl}
${vectorMain(each)}
  ${unroll(4, (k) => `let pixel${k} = (n[${k}] * 2 * u.height + 2 * row[${k}]) * u.width + col[${k}];`)}
  for (; channel < end; channel++) {
    let place = channel * u.rowVectors + vector;
    ${unroll(9, (k) => `let p${Math.floor(k / 3)}${k % 3} = products[place + ${k} * u.placeVectors];`)}
    ${unroll(3, (a) => `let p${a}left = p${a}0 + p${a}1;\n  let p${a}right = p${a}0 + p${a}2;`)}
    let y00 = p0left + p1left;
    let y01 = p0right + p1right;
    let y10 = p0left + p2left;
    let y11 = p0right + p2right;
    ${fused.embedding ? '' : 'let add = addend(channel, 0);'}
    ${unroll(4, pixel)}
  }
}`,
    grid: linearGrid(ceilDiv(ceilDiv(range.count, 4) * ceilDiv(y[0], each), LANES)),
  });
}
