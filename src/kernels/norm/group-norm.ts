// Group normalisation with the conditioning that resnets apply after it: y = act(a x + b) per channel and sample.
//
// Versions for norm and SiLU of [128, 8, 32, 32] in 32 groups on lavapipe (2 cores):
// - 256 invocations per (group, sample), workgroup memory: 2.2 ms (prototype).
// - 64 invocations: 1.28 ms (prototype).
// - One subgroup per (group, sample), two sweeps: 0.86 ms (prototype); 1.22 ms in a later run next to the
//   next version.
// - One invocation per (group, sample), eight samples side by side, as here: 1.06 ms in that run.
// On an H200, a workgroup per (group, sample) takes 6.9 us for this shape, 1.2 TB/s, and moves 2.4 TB/s for
// [320, 16, 64, 64] (bench/results/nvidia-h200.json).

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { pixelElement, pixelTeams, teams, unrolled } from '../device/indexing.ts';
import { f32, read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';
import { type Activation, activationWgsl } from '../elementwise/activation.ts';
import { treeReduction } from './reduction.ts';

export interface GroupNormOptions {
  readonly x: Shape;
  readonly groups: number;
  readonly eps: number;
  /** Whether an embedding [2c, n, 1, 1] scales (rows 0..c-1) and shifts (rows c..2c-1) the normalised values. */
  readonly scaleShift?: boolean;
}

/** Elements at the beginning of a group whose mean is the shift. */
const HEAD = 8;

/**
 * Returns the parts that all kernels over (group, sample) share. A team owns a group of a sample and reads its channels
 * row by row. `main(body)` runs `body`, which can use `first` (channel), `base` (element), `mean` and `rstd`.
 *
 * One sweep over x - shift yields the statistics; the shift is the mean of the group's first few elements. For any data
 * this bounds the cancellation in E[d²] - E[d]² by the group's size divided by the number of those elements, and it
 * saves one of two sweeps. Sums are folded once per row. Their order depends on h w and the family, not on n. If h w is
 * not a multiple of 4, a sample does not start on a vec4, and the elements are read one by one.
 *
 * On a software driver one invocation per group is 1.3 (28x28) to 1.9 (7x7) times as fast as one subgroup per
 * group: there are an eighth of the workgroups, no reduction, and the rows of eight samples are stored side
 * by side (`npm run bench -- kernels --op groupNorm,groupNormAffine`).
 */
export function groupTeams(capabilities: Capabilities, { x, groups, eps }: GroupNormOptions) {
  const [c, n, h, w] = x;
  if (c % groups !== 0)
    throw new ShapeError(`groupNorm: expected a multiple of ${groups} channels, got x [${x}]`);
  const { width, element } = pixelElement(h * w);
  const pixels = (h * w) / width;
  const { team, uniforms, grid, main } = teams(capabilities, groups, n, (c / groups) * pixels);
  const total = (v: string) => (width === 4 ? `dot(${v}, vec4f(1))` : v);
  return {
    team,
    element,
    grid,
    /** Last parts of a kernel's name. */
    variant: [team > 1 ? `workgroup${team}` : 'lane', element],
    /** Returns the sum of an element's components. */
    total,
    uniforms: [
      ...uniforms,
      u32('channels', c),
      u32('groupChannels', c / groups),
      u32('pixels', pixels),
      u32('rowPitch', pitch(x) / width),
      u32('samplePitch', pitch([c, n, 1, 1])),
      u32('head', Math.min(HEAD, pixels)),
      f32('headSize', width * Math.min(HEAD, pixels)),
      f32('size', (c / groups) * h * w),
      f32('eps', eps),
    ],
    main: (body: string) => /* wgsl */ `
alias Element = ${element};
${team > 1 ? treeReduction('vec2f', team) : 'fn reduce(v: vec2f, lane: u32) -> vec2f { return v; }'}
${main(/* wgsl */ `let first = row * u.groupChannels;
  let base = first * u.rowPitch + sample * u.pixels;
  var head = Element(0);
  for (var i = base; i < base + u.head; i++) { head += x[i]; }
  let shift = ${total('head')} / u.headSize;

  var sum = Element(0);
  var squares = Element(0);
  for (var channel = 0u; channel < u.groupChannels; channel++) {
    let start = base + channel * u.rowPitch;
    let end = start + u.pixels;
    ${zeros('s', 'q')}
    ${unrolled(team, (k, i) => `let d${k} = x[${i}] - shift; s${k} += d${k}; q${k} += d${k} * d${k};`)}
    sum += (s0 + s1) + (s2 + s3);
    squares += (q0 + q1) + (q2 + q3);
  }
  let moments = reduce(vec2f(${total('sum')}, ${total('squares')}), member) / u.size;
  let mean = shift + moments.x;
  let rstd = inverseSqrt(max(moments.y - moments.x * moments.x, 0) + u.eps);
  ${body}`)}`,
  };
}

/** Returns WGSL of four zero variables per name, one for each element of an iteration of `unrolled`. */
export const zeros = (...names: readonly string[]): string =>
  names.flatMap((name) => [0, 1, 2, 3].map((k) => `var ${name}${k} = Element(0);`)).join(' ');

/** Returns a routine for either the affine rows or, if `fused` is given, the normalised activations. */
function normalised(capabilities: Capabilities, options: GroupNormOptions, fused?: Activation): Routine {
  const { scaleShift = false } = options;
  const { team, element, grid, variant, uniforms, main } = groupTeams(capabilities, options);
  const act = element === 'vec4f' ? 'act' : 'act1';
  return single({
    name: [
      fused ? 'groupNorm' : 'groupNormAffine',
      ...(fused ? [fused] : []),
      ...(scaleShift ? ['scaleShift'] : []),
      ...variant,
    ].join('.'),
    bindings: [
      read('x', element),
      read('gamma'),
      read('beta'),
      ...(scaleShift ? [read('embedding')] : []),
      write('y', fused ? element : 'f32'),
    ],
    uniforms,
    body: /* wgsl */ `${fused ? activationWgsl(fused) : ''}
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
${main(
  fused
    ? /* wgsl */ `for (var channel = 0u; channel < u.groupChannels; channel++) {
    let ab = affineOf(first + channel, sample, mean, rstd);
    let start = base + channel * u.rowPitch;
    let end = start + u.pixels;
    ${unrolled(team, (_, i) => `y[${i}] = ${act}(x[${i}] * ab.x + ab.y);`)}
  }`
    : /* wgsl */ `for (var channel = first + member; channel < first + u.groupChannels; channel += ${team}) {
    let ab = affineOf(channel, sample, mean, rstd);
    y[channel * u.samplePitch + sample] = ab.x;
    y[(u.channels + channel) * u.samplePitch + sample] = ab.y;
  }`,
)}`,
    grid,
  });
}

/**
 * Group norm as an affine map per channel and sample, which a convolution can apply to its input. Operands x [c, n, h,
 * w], gamma [c], beta [c], with `scaleShift` embedding [2c, n, 1, 1] = (scale, shift), and y [2c, n, 1, 1]: rows 0..c-1
 * hold a = rstd gamma (1 + scale), rows c..2c-1 hold b = (beta - mean rstd gamma) (1 + scale) + shift.
 */
export const groupNormAffine = (capabilities: Capabilities, options: GroupNormOptions): Routine =>
  normalised(capabilities, options);

/**
 * y = act(groupNorm(x) (1 + scale) + shift), statistics and application in one kernel, whose second sweep finds the
 * group in the cache. Operands x, gamma, beta, with `scaleShift` embedding [2c, n, 1, 1], y [c, n, h, w].
 */
export const groupNorm = (
  capabilities: Capabilities,
  options: GroupNormOptions & { readonly activation: Activation },
): Routine => normalised(capabilities, options, options.activation);

/**
 * y = act(a x + b) with the rows that `groupNormAffine` computes. Operands x [c, n, h, w], affine [2c, n, 1, 1], y [c,
 * n, h, w]. A team walks the pixels of a (channel, sample).
 */
export function affine(
  capabilities: Capabilities,
  { x, activation }: { readonly x: Shape; readonly activation: Activation },
): Routine {
  const { width, element, pixels, team, uniforms, grid, main } = pixelTeams(capabilities, x);
  const act = width === 4 ? 'act' : 'act1';
  return single({
    name: `affine.${activation}.${element}`,
    bindings: [read('x', element), read('affine'), write('y', element)],
    uniforms: [
      ...uniforms,
      u32('channels', x[0]),
      u32('pixels', pixels),
      u32('rowPitch', pitch(x) / width),
      u32('samplePitch', pitch([1, x[1], 1, 1])),
    ],
    body: `${activationWgsl(activation)}${main(/* wgsl */ `let a = affine[row * u.samplePitch + sample];
  let b = affine[(u.channels + row) * u.samplePitch + sample];
  let start = row * u.rowPitch + sample * u.pixels;
  let end = start + u.pixels;
  ${unrolled(team, (_, i) => `y[${i}] = ${act}(x[${i}] * a + b);`)}`)}`,
    grid,
  });
}
