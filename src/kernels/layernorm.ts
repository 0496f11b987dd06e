// Layer normalisation over the channels of each column.

import type { Capabilities } from './device.ts';
import { walk } from './indexing.ts';
import { defineKernel, f32, read, u32, write } from './kernel.ts';
import { type Routine, single } from './routine.ts';
import { pitch, type Shape } from './tensor.ts';

export interface LayerNormOptions {
  readonly x: Shape;
  readonly eps: number;
  /** Whether a weight and a bias follow; default true. */
  readonly gamma?: boolean;
  readonly beta?: boolean;
}

/** Rows whose mean is the shift of the one-sweep variance. */
const SHIFT_ROWS = 8;

/**
 * y[:, p] = (x[:, p] - mean) / sqrt(var + eps) gamma + beta, with mean and variance over the channels of column p.
 * Operands x [c, n, h, w], where asked for gamma [c] and beta [c], and y [c, n, h, w].
 *
 * One invocation owns four columns and walks down the rows: neighbours read neighbouring vec4s and no lane waits
 * for another. The statistics are those of x - (mean of the first 8 rows), so that a large mean cancels before
 * it is squared; columns of the padding yield whatever they hold.
 */
export function layerNorm(capabilities: Capabilities, options: LayerNormOptions): Routine {
  const { x, eps, gamma = true, beta = true } = options;
  const [c] = x;
  const columns = pitch(x) / 4;
  const { uniforms, grid, main } = walk(capabilities, columns);
  const kernel = defineKernel({
    name: `layerNorm${gamma ? '.gamma' : ''}${beta ? '.beta' : ''}`,
    bindings: [
      read('x', 'vec4f'),
      ...(gamma ? [read('gamma')] : []),
      ...(beta ? [read('beta')] : []),
      write('y', 'vec4f'),
    ],
    uniforms: [
      ...uniforms,
      u32('channels', c),
      u32('columns', columns),
      u32('shiftRows', Math.min(SHIFT_ROWS, c)),
      f32('eps', eps),
    ],
    body: main(/* wgsl */ `let column = i;
  var shift = vec4f(0);
  for (var row = 0u; row < u.shiftRows; row++) { shift += x[row * u.columns + column]; }
  shift /= f32(u.shiftRows);
  var sum = vec4f(0);
  var squares = vec4f(0);
  for (var row = 0u; row < u.channels; row++) {
    let d = x[row * u.columns + column] - shift;
    sum += d;
    squares += d * d;
  }
  let m = sum / f32(u.channels);
  let mean = shift + m;
  let rstd = inverseSqrt(max(squares / f32(u.channels) - m * m, vec4f(0)) + u.eps);
  for (var row = 0u; row < u.channels; row++) {
    let at = row * u.columns + column;
    y[at] = (x[at] - mean) * rstd${gamma ? ' * gamma[row]' : ''}${beta ? ' + beta[row]' : ''};
  }`),
    grid,
  });
  return single(kernel, ['x', ...(gamma ? ['gamma'] : []), ...(beta ? ['beta'] : []), 'y']);
}
