// Group normalisation, with the conditioning that resnets put behind it: y = act(a x + b) per channel and sample.

import { type Activation, activationWgsl } from './activation.ts';
import type { Capabilities } from './device.ts';
import { ROW_OF_VECTOR } from './elementwise.ts';
import { ShapeError } from './errors.ts';
import { divisor, ELEMENTWISE_MAIN, LANES, LINEAR_INDEX, QUOTIENT } from './indexing.ts';
import {
  ceilDiv,
  defineKernel,
  f32,
  type Kernel,
  LINEAR_GROUP,
  linearGrid,
  read,
  u32,
  write,
} from './kernel.ts';
import { reduction } from './reduction.ts';
import { type Routine, single } from './routine.ts';
import { pitch, type Shape, storageElements } from './tensor.ts';

export interface GroupNormOptions {
  readonly x: Shape;
  readonly groups: number;
  readonly eps: number;
  /** Whether an embedding [2c, n, 1, 1] scales (rows 0..c-1) and shifts (rows c..2c-1) what was normalised. */
  readonly scaleShift?: boolean;
}

/**
 * The kernel of a (group, sample): its mean and rstd, then either the affine rows or the whole normalised group.
 *
 * One workgroup reads the group's channels row by row. The statistics come from one sweep over x - shift, with
 * the mean of the first few elements as shift: that bounds the cancellation in E[d²] - E[d]² by the group's
 * size over the number of those elements whatever the data, and costs one sweep less than two passes. The order of the sums
 * depends on h w and the family, not on n. Where h w is no multiple of 4 a sample does not start on a vec4 and
 * the elements are read one by one.
 */
function statisticsKernel(
  capabilities: Capabilities,
  { x, groups, eps, scaleShift = false }: GroupNormOptions,
  fused: Activation | undefined,
): Kernel {
  const [c, n, h, w] = x;
  if (c % groups !== 0) throw new ShapeError(`groupNorm: ${c} channels do not divide into ${groups} groups`);
  const width = (h * w) % 4 === 0 ? 4 : 1;
  const element = width === 4 ? 'vec4f' : 'f32';
  const { enable, lanes, wgsl } = reduction(capabilities, 'vec2f');
  const variant = `${fused ? `groupNorm.${fused}` : 'groupNormAffine'}${scaleShift ? '.scaleShift' : ''}`;
  return defineKernel({
    name: `${variant}.${capabilities.family}.${element}`,
    enable,
    bindings: [
      read('x', element),
      read('gamma'),
      read('beta'),
      ...(scaleShift ? [read('embedding')] : []),
      write('y', fused ? element : 'f32'),
    ],
    uniforms: [
      u32('count', groups * n),
      u32('n', n),
      u32('channels', c),
      u32('groupChannels', c / groups),
      u32('pixels', (h * w) / width),
      u32('rowPitch', pitch(x) / width),
      u32('samplePitch', pitch([c, n, 1, 1])),
      f32('size', (c / groups) * h * w),
      f32('shiftSize', width * Math.min((h * w) / width, lanes)),
      f32('eps', eps),
    ],
    body: /* wgsl */ `
alias Element = ${element};
${wgsl}${LINEAR_GROUP}${fused ? activationWgsl(fused) : ''}
fn total(v: Element) -> f32 { return ${width === 4 ? 'dot(v, vec4f(1))' : 'v'}; }

/** The factor and offset of a channel, (a, b). */
fn affineOf(channel: u32, sample: u32, mean: f32, rstd: f32) -> vec2f {
  let a = rstd * gamma[channel];
  let b = beta[channel] - mean * a;
  ${
    scaleShift
      ? `let scale = 1 + embedding[channel * u.samplePitch + sample];
  return vec2f(a * scale, b * scale + embedding[(u.channels + channel) * u.samplePitch + sample]);`
      : 'return vec2f(a, b);'
  }
}

@compute @workgroup_size(${lanes}) fn main(@builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = linearGroup(group, groups);
  if (index >= u.count) { return; }
  let first = index / u.n * u.groupChannels;
  let sample = index % u.n;
  let base = first * u.rowPitch + sample * u.pixels;

  var head = Element(0);
  if (lane < u.pixels) { head = x[base + lane]; }
  let shift = reduce(vec2f(total(head), 0), lane).x / u.shiftSize;
  var sum = Element(0);
  var squares = Element(0);
  for (var row = 0u; row < u.groupChannels; row++) {
    let start = base + row * u.rowPitch;
    for (var i = lane; i < u.pixels; i += ${lanes}u) {
      let d = x[start + i] - shift;
      sum += d;
      squares += d * d;
    }
  }
  let moments = reduce(vec2f(total(sum), total(squares)), lane) / u.size;
  let mean = shift + moments.x;
  let rstd = inverseSqrt(max(moments.y - moments.x * moments.x, 0) + u.eps);
${
  fused
    ? `  for (var row = 0u; row < u.groupChannels; row++) {
    let start = base + row * u.rowPitch;
    let ab = affineOf(first + row, sample, mean, rstd);
    for (var i = lane; i < u.pixels; i += ${lanes}u) {
      y[start + i] = ${width === 4 ? 'act' : 'act1'}(x[start + i] * ab.x + ab.y);
    }
  }`
    : `  for (var row = lane; row < u.groupChannels; row += ${lanes}u) {
    let ab = affineOf(first + row, sample, mean, rstd);
    y[(first + row) * u.samplePitch + sample] = ab.x;
    y[(u.channels + first + row) * u.samplePitch + sample] = ab.y;
  }`
}
}`,
    grid: linearGrid(groups * n),
  });
}

const operandsOf = (scaleShift: boolean | undefined): readonly string[] =>
  scaleShift ? ['x', 'gamma', 'beta', 'embedding', 'y'] : ['x', 'gamma', 'beta', 'y'];

/**
 * Group norm as the affine map that it is once the statistics are known, for a convolution to apply on its way in.
 * Operands x [c, n, h, w], gamma [c], beta [c], with `scaleShift` embedding [2c, n, 1, 1] = (scale, shift), and
 * y [2c, n, 1, 1]: rows 0..c-1 hold a = rstd gamma (1 + scale), rows c..2c-1 hold
 * b = (beta - mean rstd gamma) (1 + scale) + shift.
 */
export const groupNormAffine = (capabilities: Capabilities, options: GroupNormOptions): Routine =>
  single(statisticsKernel(capabilities, options, undefined), operandsOf(options.scaleShift));

/**
 * y = act(groupNorm(x) (1 + scale) + shift), statistics and application in one kernel: the second sweep finds
 * the group in the cache. Operands x, gamma, beta, with `scaleShift` embedding [2c, n, 1, 1], y [c, n, h, w].
 */
export const groupNorm = (
  capabilities: Capabilities,
  options: GroupNormOptions & { readonly activation: Activation },
): Routine =>
  single(statisticsKernel(capabilities, options, options.activation), operandsOf(options.scaleShift));

/**
 * y = act(a x + b) with the rows that `groupNormAffine` makes.
 * Operands x [c, n, h, w], affine [2c, n, 1, 1], y [c, n, h, w]. One invocation writes one vec4.
 */
export function affine(
  _: Capabilities,
  { x, activation }: { readonly x: Shape; readonly activation: Activation },
): Routine {
  const count = storageElements(x) / 4;
  const samplePitch = pitch([x[0], x[1], 1, 1]);
  const kernel = defineKernel({
    name: `affine.plain.${activation}`,
    bindings: [read('x', 'vec4f'), read('affine'), write('y', 'vec4f')],
    uniforms: [
      u32('count', count),
      ...divisor('rowVectors', pitch(x) / 4),
      ...divisor('pixels', x[2] * x[3]),
      u32('samplePitch', samplePitch),
      u32('lastSample', x[1] - 1),
      u32('offsets', x[0] * samplePitch),
    ],
    body: /* wgsl */ `${LINEAR_INDEX}${QUOTIENT}${ROW_OF_VECTOR}${activationWgsl(activation)}
${ELEMENTWISE_MAIN} {
  let i = linearIndex(group, groups, local);
  if (i >= u.count) { return; }
  let at = placeOf(i);
  var a = vec4f(affine[at.first]);
  var b = vec4f(affine[u.offsets + at.first]);
  if (at.first != at.last) {
    for (var k = 1u; k < 4u; k++) {
      let place = sampleOf(at, k);
      a[k] = affine[place];
      b[k] = affine[u.offsets + place];
    }
  }
  y[i] = act(x[i] * a + b);
}`,
    grid: linearGrid(ceilDiv(count, LANES)),
  });
  return single(kernel, ['x', 'affine', 'y']);
}
