// Prepares a convolution's input in scratch: maps it by a x + b and the activation and surrounds the images with zeros.
// A kernel that reads each pixel many times then neither repeats the map nor checks for the image's border.

import { divisor, QUOTIENT } from '../device/indexing.ts';
import { ceilDiv, LINEAR_GROUP, linearGrid, linearMain, read, u32, write } from '../device/kernel.ts';
import { type Step, step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { type Geometry, prologue } from './conv2d-shape.ts';
import { lines } from './conv2d-tiles.ts';

const LANES = 32;
/** Channels per invocation. Computing an invocation's position costs as much as processing three channels. */
const CHANNELS = 8;

/** Samples `first`..`first + count` of the batch. */
export interface SampleRange {
  readonly first: number;
  readonly count: number;
}

/**
 * Returns the vec4s of a padded row: one of zeros, then the image's row, filled up with zeros to a multiple
 * of 4. One row of zeros lies above every image and below the last one. The rows after that are read only for
 * pixels that are discarded.
 */
export const paddedRow = ({ x }: Geometry): number => ceilDiv(x[3], 4) + 1;

/** Returns the distance between channels in vec4s, in scratch for `samples`. */
export const paddedPlane = (geometry: Geometry, samples: number): number =>
  (samples * (geometry.x[2] + 1) + 5) * paddedRow(geometry);

/** Returns the step that fills `padded` for a range of samples; an invocation writes one vec4 of some channels. */
export function padInput(geometry: Geometry, { first, count }: SampleRange): Step {
  const { x, fused } = geometry;
  const on = prologue(geometry);
  const aligned = x[3] % 4 === 0;
  const row = paddedRow(geometry);
  const rows = count * (x[2] + 1) + 2; // the last row is there for its first vec4, which the row above reads
  const blocks = ceilDiv(x[0], CHANNELS);
  const load = aligned
    ? 'let raw = x[select(0, at / 4, inside)];'
    : `var raw: vec4f;
  ${lines(4, (k) => `raw[${k}] = x[select(0, at + ${k}, inside && col + ${k} < u.width)];`)}`;
  const clip = aligned ? 'inside' : 'vec4<bool>(inside) & (vec4u(col) + vec4u(0, 1, 2, 3) < vec4u(u.width))';
  return step({
    name: `conv2d.pad.${fused.affine ?? 'bare'}.${aligned ? 'vec4f' : 'f32'}`,
    bindings: [read('x', aligned ? 'vec4f' : 'f32'), ...on.bindings, write('padded', 'vec4f')],
    uniforms: [
      ...divisor('vectors', rows * row),
      ...divisor('row', row),
      ...divisor('step', x[2] + 1),
      u32('blocks', blocks),
      u32('channels', x[0]),
      u32('plane', paddedPlane(geometry, count)),
      u32('first', first),
      u32('width', x[3]),
      u32('xPitch', pitch(x)),
      u32('lastSample', x[1] - 1),
      ...on.uniforms,
    ],
    body: /* wgsl */ `const CHANNELS = ${CHANNELS}u;
${LINEAR_GROUP}${QUOTIENT}${on.wgsl}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let block = quotient(index, u.vectors, u.vectorsInverse);
  if (block >= u.blocks) { return; }
  let vector = index - block * u.vectors;
  let line = quotient(vector, u.row, u.rowInverse);
  let place = vector - line * u.row;
  let image = quotient(line, u.step, u.stepInverse);
  let above = image * u.step; // the line of zeros above the image
  let sample = min(u.first + image, u.lastSample);
  let inside = line > above && place > 0;
  let col = 4 * (place - 1);
  var channel = block * CHANNELS;
  let end = min(channel + CHANNELS, u.channels);
  var at = channel * u.xPitch + (sample * (u.step - 1) + line - above - 1) * u.width + col;
  var to = channel * u.plane + vector;
  for (; channel < end; channel++) {
    ${load}
    let slope = slopeOf(channel, sample);
    let offset = offsetOf(channel, sample);
    padded[to] = select(vec4f(), mapped(raw, vec4f(slope), vec4f(offset)), ${clip});
    at += u.xPitch;
    to += u.plane;
  }
}`,
    grid: linearGrid(ceilDiv(rows * row * blocks, LANES)),
  });
}
