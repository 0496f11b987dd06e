// Convolution as one matrix product over gathered pixels (im2col): every tap of every input channel is a row
// of the product's right factor. It serves strides, and images of so few tiles that transforming weights
// costs more than it saves.

import type { Capabilities } from '../device/device.ts';
import { divisor } from '../device/indexing.ts';
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
import { columns, pitch } from '../device/tensor.ts';
import { gemm, packVector } from '../gemm/gemm.ts';
import {
  COLUMN_PLACE,
  columnUniforms,
  eachTap,
  epilogue,
  fusedTag,
  type Geometry,
  prologue,
  windowsOf,
  windowUniforms,
} from './conv2d-shape.ts';
import { packRows, paddedChannels } from './conv2d-weights.ts';
import { CONVOLUTIONS } from './families.ts';

const LANES = 32;
/** Channels per invocation, which share the work of locating its pixels. */
const CHANNELS = 8;
/** Bytes of gathered pixels in a pass: as many as a family puts into a pass of a transform, and at least these. */
const PASS_BYTES = 2 ** 25;

/**
 * Returns a routine for y = weight · taps, with taps[c, i, j][p] = act(a x + b)[c, p stride + (i, j) - padding] or
 * zero, in passes over the columns. A product cannot add an embedding, so a further step adds it to y.
 */
export function tapsConv2d(capabilities: Capabilities, geometry: Geometry): Routine {
  const {
    x: [ic],
    y,
    kernel: [kh, kw],
    weights,
    scale,
    fused: { bias, embedding, residual },
  } = geometry;
  const k = ic * kh * kw;
  const passBytes = Math.max(PASS_BYTES, CONVOLUTIONS[capabilities.family].passBytes);
  const limit = Math.min(passBytes, capabilities.maxBindingBytes);
  const most = Math.max(64, Math.floor(limit / 4 / k / 64) * 64);
  const alone = !embedding;
  const steps: Step[] = [];
  for (let first = 0; first < columns(y); first += most) {
    const count = Math.min(most, columns(y) - first);
    const row = pad4(count);
    const product = gemm(capabilities, {
      m: y[0],
      k,
      columns: count,
      a: { pitch: paddedChannels(y[0]) },
      b: { pitch: row },
      c: { pitch: pitch(y), offset: first },
      aType: weights,
      ...(alone ? { bias, residual, scale } : {}),
    });
    const also = alone ? [bias && 'bias', residual && 'residual'].filter((name) => name !== false) : [];
    steps.push(gatherTaps(geometry, first, row), {
      kernel: product,
      operands: ['weight', 'taps', ...also, 'y'],
    });
  }
  if (!alone) steps.push(finish(geometry));
  return {
    steps,
    scratch: { taps: 4 * k * Math.min(most, pitch(y)) },
    packing: { weight: packRows(geometry), ...(bias ? { bias: packVector(y[0]) } : {}) },
  };
}

/**
 * Returns the step that gathers `taps` of `row` columns from `first` on; an invocation gathers 4 columns of
 * some channels.
 */
export function gatherTaps(geometry: Geometry, first: number, row: number): Step {
  const { x, y, fused } = geometry;
  const on = prologue(geometry);
  const vectors = row / 4;
  const blocks = ceilDiv(x[0], CHANNELS);
  return step({
    name: `conv2d.taps.${fused.affine ?? 'bare'}`,
    bindings: [read('x'), ...on.bindings, write('taps', 'vec4f')],
    uniforms: [
      ...columnUniforms(y),
      ...windowUniforms(geometry),
      ...divisor('vectors', vectors),
      u32('blocks', blocks),
      u32('first', first),
      ...on.uniforms,
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${COLUMN_PLACE}${on.wgsl}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let block = quotient(index, u.vectors, u.vectorsInverse);
  if (block >= u.blocks) { return; }
  let vector = index - block * u.vectors;
  ${windowsOf('u.first + 4 * vector')}
  let end = min((block + 1) * ${CHANNELS}, u.channels);
  var to = block * ${CHANNELS} * u.kernelHeight * u.kernelWidth * u.vectors + vector;
  for (var c = block * ${CHANNELS}; c < end; c++) {
    ${eachTap(/* wgsl */ `taps[to] = a;
        to += u.vectors;`)}
  }
}`,
    grid: linearGrid(ceilDiv(vectors * blocks, LANES)),
  });
}

/** Returns the step that applies bias, embedding, residual and scale to the products in y, 4 columns per invocation. */
function finish(geometry: Geometry): Step {
  const { y, fused } = geometry;
  const out = epilogue(geometry);
  const vectors = pitch(y) / 4;
  return step({
    name: `conv2d.taps.finish.${fusedTag({ ...fused, affine: undefined })}`,
    bindings: [...out.bindings, accumulate('y', 'vec4f')],
    uniforms: [
      ...columnUniforms(y),
      ...divisor('vectors', vectors),
      u32('outChannels', y[0]),
      ...out.uniforms,
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${COLUMN_PLACE}${out.wgsl}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let o = quotient(index, u.vectors, u.vectorsInverse);
  if (o >= u.outChannels) { return; }
  let column = 4 * (index - o * u.vectors);
  let add = vec4f(addend(o, placeOf(column).x), addend(o, placeOf(column + 1).x),
    addend(o, placeOf(column + 2).x), addend(o, placeOf(column + 3).x));
  y[index] = finished(y[index] + add, index);
}`,
    grid: linearGrid(ceilDiv(vectors * y[0], LANES)),
  });
}
