// Converts images to columns with one pixel per row, as a product over whole images needs them, and back.

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, walk } from '../device/indexing.ts';
import { read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';

/**
 * Returns a routine that copies between `whole` [c, n, h, w] and `flat` [c·h·w, n, 1, 1]: flat[c·h·w + p, n]
 * = whole[c, n, p].
 */
function copy(capabilities: Capabilities, name: string, whole: Shape, toFlat: boolean): Routine {
  const [c, n, h, w] = whole;
  const pixels = h * w;
  const { uniforms, grid, main } = walk(capabilities, c * n * pixels);
  return single({
    name,
    bindings: [read('x'), write('y')],
    uniforms: [
      ...uniforms,
      ...divisor('n', n),
      ...divisor('pixels', pixels),
      u32('wholePitch', pitch(whole)),
      u32('flatPitch', pitch([1, n, 1, 1])),
    ],
    body:
      QUOTIENT +
      main(/* wgsl */ `let row = quotient(i, u.n, u.nInverse);
    let sample = i - row * u.n;
    let channel = quotient(row, u.pixels, u.pixelsInverse);
    let flat = row * u.flatPitch + sample;
    let whole = channel * u.wholePitch + sample * u.pixels + row - channel * u.pixels;
    ${toFlat ? 'y[flat] = x[whole];' : 'y[whole] = x[flat];'}`),
    grid,
  });
}

/** y[c·h·w + p, n] = x[c, n, p]; operands x [c, n, h, w], y [c·h·w, n, 1, 1]. */
export const flatten = (capabilities: Capabilities, { x }: { readonly x: Shape }): Routine =>
  copy(capabilities, 'flatten', x, true);

/** y[c, n, p] = x[c·h·w + p, n]; operands x [c·h·w, n, 1, 1], y [c, n, h, w]. */
export const unflatten = (capabilities: Capabilities, { y }: { readonly y: Shape }): Routine =>
  copy(capabilities, 'unflatten', y, false);
