// The gradient of layer normalisation with respect to its input.

import type { Capabilities } from '../device/device.ts';
import { QUOTIENT, walk } from '../device/indexing.ts';
import { read, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { columnParts, type LayerNormOptions } from './layer-norm.ts';

/**
 * y[:, p] = rstd (dz - mean of dz - xhat mean of dz xhat), with xhat = (x - mean) rstd and dz = dy (1 +
 * scale) gamma. Means are over the channels of column p.
 * Operands x, dy [c, n, h, w], gamma [c] and scale [c, n, 1, 1] as selected by the options, and y [c, n, h,
 * w]. One invocation owns four columns, as in the forward pass. Values in columns of the padding affect no
 * other column.
 */
export function layerNormGradient(
  capabilities: Capabilities,
  { x, eps, gamma = true, modulated = false }: Omit<LayerNormOptions, 'beta'>,
): Routine {
  const { uniforms, grid, main } = walk(capabilities, pitch(x) / 4);
  const parts = columnParts({ x, eps, modulated });
  const operands = ['x', 'dy', ...(gamma ? ['gamma'] : []), ...(modulated ? ['scale'] : [])];
  const dz = `dy[at]${gamma ? ' * gamma[row]' : ''}${modulated ? ` * (1 + ${parts.rowOf('scale')})` : ''}`;
  return single({
    name: `layerNormGradient${gamma ? '.gamma' : ''}${modulated ? `.${parts.variant}` : ''}`,
    bindings: [
      ...operands.map((name) => read(name, name === 'x' || name === 'dy' ? 'vec4f' : 'f32')),
      write('y', 'vec4f'),
    ],
    uniforms: [...uniforms, ...parts.uniforms],
    body: `${modulated ? QUOTIENT : ''}${main(/* wgsl */ `${parts.statistics}
  var plain = vec4f(0);
  var along = vec4f(0);
  for (var row = 0u; row < u.channels; row++) {
    let at = row * u.columns + column;
    let dz = ${dz};
    plain += dz;
    along += dz * (x[at] - mean);
  }
  plain /= f32(u.channels);
  along *= rstd / f32(u.channels);
  for (var row = 0u; row < u.channels; row++) {
    let at = row * u.columns + column;
    y[at] = rstd * (${dz} - plain - (x[at] - mean) * rstd * along);
  }`)}`,
    grid,
  });
}
