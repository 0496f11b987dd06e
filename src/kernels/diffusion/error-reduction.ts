// The error of an evaluation: one number that measures how far the network's estimate of the noise is from the noise.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, walk } from '../device/indexing.ts';
import { ceilDiv, f32, LINEAR_GROUP, linearGrid, read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { columns, pitch, type Shape } from '../device/tensor.ts';
import { reduction } from '../norm/reduction.ts';
import { type NoiseSource, noiseParts } from './mix.ts';

/** Distances by the residual d: d², |d|, or Huber's with delta 1 (d²/2 up to 1, |d| - 1/2 beyond). */
export type Distance = 'l2' | 'l1' | 'huber';

const DISTANCES: Readonly<Record<Distance, string>> = {
  l2: 'return d * d;',
  l1: 'return abs(d);',
  huber: 'let m = abs(d); return select(m - 0.5, 0.5 * d * d, m < vec4f(1));',
};

/**
 * The residual whose distance is the error: eps - eps_hat between noise and estimate, or x0_hat - x0 between
 * denoised image and image, which is b / a times as large.
 */
export type Residual = 'eps' | 'x0';

/** Derivatives of the distances; the derivative of |d| at 0 is defined as 0. */
const SLOPES: Readonly<Record<Distance, string>> = {
  l2: 'return 2 * d;',
  l1: 'return sign(d);',
  huber: 'return clamp(d, vec4f(-1), vec4f(1));',
};

/** Blocks of four elements that a lane sums before it adds them to its total. */
const RUN = 16;

interface ErrorReductionOptions {
  /** The network's output [c', n, h, w] with c' >= c; channels beyond c (a learned variance) are ignored. */
  readonly prediction: Shape;
  /** The noised batch [c, n, h, w]. */
  readonly xt: Shape;
  readonly distance: Distance;
  /** Default eps. */
  readonly residual?: Residual | undefined;
  readonly noise: NoiseSource;
}

/**
 * y[n] = mean over c, h, w of distance(r (eps - (alpha prediction + beta xt))), (alpha, beta) of level[n],
 * and r = 1, or b / a if the residual is that of x0.
 *
 * Operands prediction [c', n, h, w], xt [c, n, h, w], level [n] u32, noise [n] rows of `noiseKeys`, levels
 * rows of (a, b, alpha, beta), with a table noises [count][c h w], and y [1, n, 1, 1]. One workgroup computes
 * one evaluation. Candidates' errors differ by 1e-4 of their size, so sums are kept short: each lane has four
 * components and sums runs of 16, then the runs, and lanes are added last. The worst case is (16 + runs +
 * lanes) roundings of numbers of one sign. The order depends only on c h w and the family.
 */
export function errorReduction(capabilities: Capabilities, options: ErrorReductionOptions): Routine {
  const { xt, distance, residual = 'eps', noise } = options;
  const [c, n, h, w] = xt;
  covered('errorReduction', options);
  const elements = c * h * w;
  const blocks = ceilDiv(elements, 4);
  const parts = noiseParts(noise);
  const { enable, lanes, wgsl } = reduction(capabilities);
  return single({
    name: `errorReduction.${capabilities.family}.${distance}.${residual}.${noise.kind}`,
    enable,
    bindings: [read('prediction'), read('xt'), ...parts.bindings, write('y')],
    uniforms: [
      u32('n', n),
      u32('elements', elements),
      u32('blocks', blocks),
      ...divisor('pixels', h * w),
      u32('pitch', pitch(xt)),
      f32('mean', 1 / elements),
      ...parts.uniforms,
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${QUOTIENT}${wgsl}${parts.wgsl}
fn distance(d: vec4f) -> vec4f { ${DISTANCES[distance]} }

${residualWgsl(residual)}
@compute @workgroup_size(${lanes}) fn main(@builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let sample = linearGroup(group, groups);
  if (sample >= u.n) { return; }
  let row = levels[level[sample]];
  let key = noise[sample];
  var total = vec4f(0);
  for (var first = lane; first < u.blocks; first += ${RUN * lanes}u) {
    var run = vec4f(0);
    for (var block = first; block < min(first + ${RUN * lanes}u, u.blocks); block += ${lanes}u) {
      run += distance(residual(block, sample, key, row));
    }
    total += run;
  }
  let sum = reduce((total.x + total.y) + (total.z + total.w), lane);
  if (lane == 0) { y[sample] = sum * u.mean; }
}`,
    grid: linearGrid(n),
  });
}

function covered(op: string, { prediction, xt }: ErrorReductionOptions): void {
  if (prediction[0] < xt[0] || prediction[1] !== xt[1] || columns(prediction) !== columns(xt))
    throw new ShapeError(
      `${op}: expected a prediction with the samples, pixels and at least the channels of xt [${xt}], got [${prediction}]`,
    );
}

const residualWgsl = (residual: Residual): string => /* wgsl */ `
/** Returns the residuals of elements 4 block .. 4 block + 3, with 0 beyond the last element. */
fn residual(block: u32, sample: u32, key: vec4u, row: vec4f) -> vec4f {
  var d = noiseOf(key, block);
  for (var k = 0u; k < 4; k++) {
    let element = 4 * block + k;
    if (element < u.elements) {
      let channel = quotient(element, u.pixels, u.pixelsInverse);
      let at = channel * u.pitch + sample * u.pixels + element - channel * u.pixels;
      d[k] -= row.z * prediction[at] + row.w * xt[at];
    } else {
      d[k] = 0;
    }
  }
  return ${residual === 'x0' ? '(row.y / row.x) * d' : 'd'};
}
`;

/**
 * The gradient of the errors with respect to the prediction (0 in channels that errors ignore), or with
 * respect to the x_t in the residual, not counting its influence on the prediction: y = -dy[n] r (alpha or
 * beta) distance'(residual) / (c h w).
 *
 * Operands as for `errorReduction`, with dy [1, n, 1, 1] after xt; y has the shape of the prediction or of
 * x_t. The noise is recomputed.
 */
export function errorsGradient(
  capabilities: Capabilities,
  options: ErrorReductionOptions & { readonly of: 'prediction' | 'xt' },
): Routine {
  const { prediction, xt, distance, residual = 'eps', noise, of } = options;
  const [c, n, h, w] = xt;
  covered('errorsGradient', options);
  const y = of === 'xt' ? xt : prediction;
  const elements = c * h * w;
  const made = y[0] * h * w;
  const blocks = ceilDiv(made, 4);
  const parts = noiseParts(noise);
  const { uniforms, grid, main } = walk(capabilities, n * blocks);
  const factor = of === 'xt' ? 'row.w' : 'row.z';
  return single({
    name: `errorsGradient.${of}.${distance}.${residual}.${noise.kind}`,
    bindings: [read('prediction'), read('xt'), read('dy'), ...parts.bindings, write('y')],
    uniforms: [
      ...uniforms,
      u32('elements', elements),
      u32('made', made),
      ...divisor('blocks', blocks),
      ...divisor('pixels', h * w),
      u32('pitch', pitch(xt)),
      f32('mean', 1 / elements),
      ...parts.uniforms,
    ],
    body: /* wgsl */ `${QUOTIENT}${parts.wgsl}
fn slope(d: vec4f) -> vec4f { ${SLOPES[distance]} }
${residualWgsl(residual)}
${main(/* wgsl */ `let sample = quotient(i, u.blocks, u.blocksInverse);
    let block = i - sample * u.blocks;
    let row = levels[level[sample]];
    let factor = -dy[sample] * u.mean * ${factor}${residual === 'x0' ? ' * row.y / row.x' : ''};
    var gradient = vec4f(0);
    if (4 * block < u.elements) { gradient = factor * slope(residual(block, sample, noise[sample], row)); }
    for (var k = 0u; k < 4; k++) {
      let element = 4 * block + k;
      if (element < u.made) {
        let channel = quotient(element, u.pixels, u.pixelsInverse);
        let at = channel * u.pitch + sample * u.pixels + element - channel * u.pixels;
        y[at] = select(0, gradient[k], element < u.elements);
      }
    }`)}`,
    grid,
  });
}
