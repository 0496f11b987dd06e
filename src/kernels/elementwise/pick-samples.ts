// Selects samples by index, for example activations that many candidates share, or keys and values of each
// sample's prompt; and sums the gradients of selected samples.

import type { Capabilities } from '../device/device.ts';
import { divisor, pixelElement, pixelTeams, QUOTIENT, unrolled, walk } from '../device/indexing.ts';
import { read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';

/**
 * y[c, n] = x[c, index[n]]; an index beyond the samples of x selects the last.
 * Operands x [c, samples, h, w], index [n] u32, y [c, n, h, w].
 */
export function pickSamples(
  capabilities: Capabilities,
  { x, n }: { readonly x: Shape; readonly n: number },
): Routine {
  const y: Shape = [x[0], n, x[2], x[3]];
  const { width, element, pixels, team, uniforms, grid, main } = pixelTeams(capabilities, y);
  return single({
    name: `pickSamples.${element}`,
    bindings: [read('x', element), read('index', 'u32'), write('y', element)],
    uniforms: [
      ...uniforms,
      u32('pixels', pixels),
      u32('last', x[1] - 1),
      u32('xPitch', pitch(x) / width),
      u32('yPitch', pitch(y) / width),
    ],
    body: main(/* wgsl */ `let readAt = row * u.xPitch + min(index[sample], u.last) * u.pixels;
  let writeAt = row * u.yPitch + sample * u.pixels;
  let start = 0u;
  let end = u.pixels;
  ${unrolled(team, (_, i) => `y[writeAt + ${i}] = x[readAt + ${i}];`)}`),
    grid,
  });
}

/**
 * y[c, m] = Σ of dy[c, n] over the n with index[n] = m, in the order of n; an index beyond the samples counts
 * for the last. Operands dy [c, n, h, w], index [n] u32, y [c, samples, h, w].
 */
export function sumPicked(
  capabilities: Capabilities,
  { dy, samples }: { readonly dy: Shape; readonly samples: number },
): Routine {
  const y: Shape = [dy[0], samples, dy[2], dy[3]];
  const { width, element, pixels, team, uniforms, grid, main } = pixelTeams(capabilities, y);
  return single({
    name: `sumPicked.${element}`,
    bindings: [read('dy', element), read('index', 'u32'), write('y', element)],
    uniforms: [
      ...uniforms,
      u32('count', dy[1]),
      u32('last', samples - 1),
      u32('pixels', pixels),
      u32('dyPitch', pitch(dy) / width),
      u32('yPitch', pitch(y) / width),
    ],
    body: main(/* wgsl */ `let writeAt = row * u.yPitch + sample * u.pixels;
  for (var i = member; i < u.pixels; i += ${team}) {
    var sum = ${element}(0);
    for (var k = 0u; k < u.count; k++) {
      if (min(index[k], u.last) == sample) { sum += dy[row * u.dyPitch + k * u.pixels + i]; }
    }
    y[writeAt + i] = sum;
  }`),
    grid,
  });
}

/** y[c, p] = Σ over samples of x[c, n, p], in their order; operands x [c, n, h, w], y [c, 1, h, w]. */
export function sumSamples(capabilities: Capabilities, { x }: { readonly x: Shape }): Routine {
  const [c, n, h, w] = x;
  const { width, element } = pixelElement(h * w);
  const pixels = (h * w) / width;
  const { uniforms, grid, main } = walk(capabilities, c * pixels);
  return single({
    name: `sumSamples.${element}`,
    bindings: [read('x', element), write('y', element)],
    uniforms: [
      ...uniforms,
      ...divisor('pixels', pixels),
      u32('samples', n),
      u32('xPitch', pitch(x) / width),
      u32('yPitch', pitch([c, 1, h, w]) / width),
    ],
    body:
      QUOTIENT +
      main(/* wgsl */ `let row = quotient(i, u.pixels, u.pixelsInverse);
    let pixel = i - row * u.pixels;
    let first = row * u.xPitch + pixel;
    var sum = x[first];
    for (var k = 1u; k < u.samples; k++) { sum += x[first + k * u.pixels]; }
    y[row * u.yPitch + pixel] = sum;`),
    grid,
  });
}
