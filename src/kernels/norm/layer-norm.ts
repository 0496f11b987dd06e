// Layer normalisation over the channels of each column, optionally modulated per sample.

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, walk } from '../device/indexing.ts';
import { f32, read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';

export interface LayerNormOptions {
  readonly x: Shape;
  readonly eps: number;
  /** Whether a weight and a bias are applied; default true. */
  readonly gamma?: boolean;
  readonly beta?: boolean;
  /** Whether rows scale and shift [c, n, 1, 1] modulate the normalised values; default false. */
  readonly modulated?: boolean;
}

/** Rows whose mean is the shift of the one-sweep variance. */
const SHIFT_ROWS = 8;

/**
 * Returns the parts that kernels over four columns share: `sample`, `column`, `mean`, `rstd`, and access to
 * rows [c, n, 1, 1].
 */
export function columnParts({ x, eps, modulated = false }: Omit<LayerNormOptions, 'gamma' | 'beta'>) {
  const [c, n, h, w] = x;
  // The sample of a vec4 of columns, or of each column if samples do not start on vec4s.
  const whole = (h * w) % 4 === 0;
  const sampleOf = (k: number) => `quotient(min(4 * column + ${k}, u.last), u.pixels, u.pixelsInverse)`;
  const samples = whole ? sampleOf(0) : `vec4u(${[0, 1, 2, 3].map(sampleOf).join(', ')})`;
  return {
    variant: whole ? 'modulated' : 'modulated1',
    /** Returns WGSL of element `row` in the sample's rows of that name. */
    rowOf: (name: string) =>
      whole
        ? `${name}[row * u.samplePitch + sample]`
        : `vec4f(${[0, 1, 2, 3].map((k) => `${name}[row * u.samplePitch + sample[${k}]]`).join(', ')})`,
    uniforms: [
      u32('channels', c),
      u32('columns', pitch(x) / 4),
      u32('shiftRows', Math.min(SHIFT_ROWS, c)),
      f32('eps', eps),
      ...(modulated
        ? [...divisor('pixels', h * w), u32('last', n * h * w - 1), u32('samplePitch', pitch([c, n, 1, 1]))]
        : []),
    ],
    /** WGSL at the beginning of a walk over columns. */
    statistics: /* wgsl */ `let column = i;
  ${modulated ? `let sample = ${samples};` : ''}
  var about = vec4f(0);
  for (var row = 0u; row < u.shiftRows; row++) { about += x[row * u.columns + column]; }
  about /= f32(u.shiftRows);
  var sum = vec4f(0);
  var squares = vec4f(0);
  for (var row = 0u; row < u.channels; row++) {
    let d = x[row * u.columns + column] - about;
    sum += d;
    squares += d * d;
  }
  let m = sum / f32(u.channels);
  let mean = about + m;
  let rstd = inverseSqrt(max(squares / f32(u.channels) - m * m, vec4f(0)) + u.eps);`,
  };
}

/**
 * y[:, p] = ((x[:, p] - mean) / sqrt(var + eps) gamma + beta) (1 + scale) + shift, with mean and variance over the
 * channels of column p, and scale and shift those of its sample (adaLN, Peebles and Xie 2023). Operands x [c, n, h, w],
 * gamma [c], beta [c], scale and shift [c, n, 1, 1] as selected by the options, and y [c, n, h, w].
 *
 * One invocation owns four columns and loops over the rows: neighbours read neighbouring vec4s and no lane
 * waits for another. The statistics are those of x - (mean of the first 8 rows), so that a large mean cancels
 * before it is squared. Columns of the padding get unspecified values.
 */
export function layerNorm(capabilities: Capabilities, options: LayerNormOptions): Routine {
  const { x, gamma = true, beta = true, modulated = false } = options;
  const { variant, rowOf, uniforms: shared, statistics } = columnParts(options);
  const { uniforms, grid, main } = walk(capabilities, pitch(x) / 4);
  return single({
    name: `layerNorm${gamma ? '.gamma' : ''}${beta ? '.beta' : ''}${modulated ? `.${variant}` : ''}`,
    bindings: [
      read('x', 'vec4f'),
      ...(gamma ? [read('gamma')] : []),
      ...(beta ? [read('beta')] : []),
      ...(modulated ? [read('scale'), read('shift')] : []),
      write('y', 'vec4f'),
    ],
    uniforms: [...uniforms, ...shared],
    body: `${modulated ? QUOTIENT : ''}${main(/* wgsl */ `${statistics}
  for (var row = 0u; row < u.channels; row++) {
    let at = row * u.columns + column;
    let normed = (x[at] - mean) * rstd${gamma ? ' * gamma[row]' : ''}${beta ? ' + beta[row]' : ''};
    y[at] = ${modulated ? `normed * (1 + ${rowOf('scale')}) + ${rowOf('shift')}` : 'normed'};
  }`)}`,
    grid,
  });
}
