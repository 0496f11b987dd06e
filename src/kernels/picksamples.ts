// Samples repeated by index: what many candidates share, and keys and values of each sample's prompt.

import type { Capabilities } from './device.ts';
import { pixelElement, teams, unrolled } from './indexing.ts';
import { defineKernel, read, u32, write } from './kernel.ts';
import { type Routine, single } from './routine.ts';
import { pitch, type Shape } from './tensor.ts';

/**
 * y[c, n] = x[c, index[n]]; an index beyond the samples of x picks the last.
 * Operands x [c, samples, h, w], index [n] u32, y [c, n, h, w].
 */
export function pickSamples(
  capabilities: Capabilities,
  { x, n }: { readonly x: Shape; readonly n: number },
): Routine {
  const [c, samples, h, w] = x;
  const { width, element } = pixelElement(h * w);
  const pixels = (h * w) / width;
  const { team, uniforms, grid, main } = teams(capabilities, c, n, pixels);
  const kernel = defineKernel({
    name: `pickSamples.${element}`,
    bindings: [read('x', element), read('index', 'u32'), write('y', element)],
    uniforms: [
      ...uniforms,
      u32('pixels', pixels),
      u32('last', samples - 1),
      u32('xPitch', pitch(x) / width),
      u32('yPitch', pitch([c, n, h, w]) / width),
    ],
    body: main(/* wgsl */ `let readAt = row * u.xPitch + min(index[sample], u.last) * u.pixels;
  let writeAt = row * u.yPitch + sample * u.pixels;
  let start = 0u;
  let end = u.pixels;
  ${unrolled(team, (_, i) => `y[writeAt + ${i}] = x[readAt + ${i}];`)}`),
    grid,
  });
  return single(kernel, ['x', 'index', 'y']);
}
