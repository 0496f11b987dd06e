// The gradients of group normalisation with its activation, scale and shift.
//
// With xhat = (x - mean) rstd, z = gamma' xhat + beta', gamma' = gamma (1 + scale), beta' = beta (1 + scale)
// + shift and y = act(z): dz = dy act'(z), and all gradients follow from dz and the sums A = Σ dz xhat and B
// = Σ dz over the pixels of a (channel, sample):
//   dx = rstd (gamma' dz - Σ gamma' B / N - xhat Σ gamma' A / N), sums over a group's channels, N its
//   elements, dgamma = Σ_n (1 + scale) A, dbeta = Σ_n (1 + scale) B, dscale = gamma A + beta B, dshift = B.
// Statistics are recomputed from x, and xhat subtracts the mean first, so that a mean far from 0 costs no
// precision.

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, unrolled, walk } from '../device/indexing.ts';
import { accumulate, read, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';
import { type Activation, slopeWgsl } from '../elementwise/activation.ts';
import { type GroupNormOptions, groupTeams, zeros } from './group-norm.ts';

type GroupNormBackwardOptions = GroupNormOptions & { readonly activation: Activation };

type GroupNormGradientOptions = GroupNormBackwardOptions & {
  /** Binds `residual`, another gradient of x, which is added. */
  readonly residual?: boolean;
};

/** Returns a routine for dx [c, n, h, w], or for the rows A and B [2c, n, 1, 1]. */
function backward(
  capabilities: Capabilities,
  options: GroupNormGradientOptions,
  made: 'dx' | 'sums',
): Routine {
  const { activation, scaleShift = false, residual = false } = options;
  const { team, element, grid, variant, uniforms, total, main } = groupTeams(capabilities, options);
  const slope = element === 'vec4f' ? 'slope' : 'slope1';
  const acts = activation !== 'none';
  const affine = made === 'dx' || acts;
  const operands = [
    'x',
    'dy',
    ...(affine ? ['gamma'] : []),
    ...(acts ? ['beta'] : []),
    ...(affine && scaleShift ? ['embedding'] : []),
    ...(residual ? ['residual'] : []),
  ];
  const embedding = (row: string) => `embedding[(${row}) * u.samplePitch + sample]`;
  const scaled = (name: string) => `${name}[channel]${scaleShift ? ` * (1 + ${embedding('channel')})` : ''}`;
  const ofChannel = /* wgsl */ `
    let channel = first + k;
    let start = base + k * u.rowPitch;
    let end = start + u.pixels;
    ${affine ? `let a = ${scaled('gamma')};` : ''}
    ${acts ? `let b = ${scaled('beta')}${scaleShift ? ` + ${embedding('u.channels + channel')}` : ''};` : ''}`;
  const dz = (xhat: string, i: string) => (acts ? `dy[${i}] * ${slope}(${xhat} * a + b)` : `dy[${i}]`);
  // y holds dy act'(z) until the last sweep, which finds it in a cache.
  const keep = made === 'dx' && acts;
  const sweep = unrolled(
    team,
    (k, i) => `let h${k} = (x[${i}] - mean) * rstd; let d${k} = ${dz(`h${k}`, i)};
      s${k} += d${k}; q${k} += d${k} * h${k};${keep ? ` y[${i}] = d${k};` : ''}`,
  );
  return single({
    name: [
      made === 'dx' ? 'groupNormGradient' : 'groupNormSums',
      activation,
      ...(scaleShift ? ['scaleShift'] : []),
      ...(residual ? ['residual'] : []),
      ...variant,
    ].join('.'),
    bindings: [
      ...operands.map((name) => read(name, ['x', 'dy', 'residual'].includes(name) ? element : 'f32')),
      made === 'dx' ? accumulate('y', element) : write('y'),
    ],
    uniforms,
    body: `${acts ? slopeWgsl(activation) : ''}${main(
      made === 'dx'
        ? /* wgsl */ `
  var sums = vec2f(0);
  for (var k = 0u; k < u.groupChannels; k++) {${ofChannel}
    ${zeros('s', 'q')}
    ${sweep}
    sums += a * vec2f(${total('(s0 + s1) + (s2 + s3)')}, ${total('(q0 + q1) + (q2 + q3)')});
  }
  let means = reduce(sums, member) / u.size;
  for (var k = 0u; k < u.groupChannels; k++) {${ofChannel}
    ${unrolled(team, (_, i) => `y[${i}] = rstd * (a * ${keep ? 'y' : 'dy'}[${i}] - means.x - (x[${i}] - mean) * rstd * means.y)${residual ? ` + residual[${i}]` : ''};`)}
  }`
        : /* wgsl */ `
  for (var k = 0u; k < u.groupChannels; k++) {${ofChannel}
    ${zeros('s', 'q')}
    ${sweep}
    let sums = reduce(vec2f(${total('(q0 + q1) + (q2 + q3)')}, ${total('(s0 + s1) + (s2 + s3)')}), member);
    if (member == 0) {
      y[channel * u.samplePitch + sample] = sums.x;
      y[(u.channels + channel) * u.samplePitch + sample] = sums.y;
    }
  }`,
    )}`,
    grid,
  });
}

/**
 * The gradient of x: operands x, dy [c, n, h, w], gamma [c], beta [c] (with an activation), with `scaleShift`
 * embedding [2c, n, 1, 1], with `residual` that [c, n, h, w], and y [c, n, h, w].
 */
export const groupNormGradient = (capabilities: Capabilities, options: GroupNormGradientOptions): Routine =>
  backward(capabilities, options, 'dx');

/**
 * The sums from which the gradients of gamma, beta and the embedding follow: y [2c, n, 1, 1], rows A = Σ dz
 * xhat, then B = Σ dz.
 * Operands x, dy [c, n, h, w], and with an activation gamma, beta, with `scaleShift` embedding.
 */
export const groupNormSums = (capabilities: Capabilities, options: GroupNormBackwardOptions): Routine =>
  backward(capabilities, options, 'sums');

/**
 * The gradient of the scale that modulates a norm, y = gamma A + beta B: operands sums [2c, n, 1, 1] (rows A,
 * then B), gamma [c] and beta [c] if the norm has them (else 1 and 0), and y [c, n, 1, 1].
 */
export function normScaleGradient(
  capabilities: Capabilities,
  { y, gamma, beta }: { readonly y: Shape; readonly gamma: boolean; readonly beta: boolean },
): Routine {
  const rows = pitch(y) / 4;
  const { uniforms, grid, main } = walk(capabilities, y[0] * rows);
  const constants = [...(gamma ? ['gamma'] : []), ...(beta ? ['beta'] : [])];
  return single({
    name: ['normScaleGradient', ...constants].join('.'),
    bindings: [read('sums', 'vec4f'), ...constants.map((name) => read(name)), write('y', 'vec4f')],
    uniforms: [...uniforms, ...divisor('rowPitch', rows)],
    body:
      QUOTIENT +
      main(/* wgsl */ `let channel = quotient(i, u.rowPitch, u.rowPitchInverse);
    y[i] = sums[i]${gamma ? ' * gamma[channel]' : ''}${beta ? ' + sums[u.count + i] * beta[channel]' : ''};`),
    grid,
  });
}
