// Looks up rows of a table by index: class embeddings, and time embeddings computed once per noise level.

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, walk } from '../device/indexing.ts';
import { read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';

interface GatherOptions {
  /** Rows of the table; an index beyond them selects the last row. */
  readonly entries: number;
  readonly channels: number;
  /** Samples, the length of index. */
  readonly n: number;
}

/**
 * y[c, n] = table[index[n]][c].
 * Operands table [entries][channels] f32, index [n] u32, y [channels, n, 1, 1].
 * Neighbouring invocations write neighbouring samples.
 */
export function gather(capabilities: Capabilities, { entries, channels, n }: GatherOptions): Routine {
  const y: Shape = [channels, n, 1, 1];
  const { uniforms, grid, main } = walk(capabilities, channels * n);
  return single({
    name: 'gather',
    bindings: [read('table'), read('index', 'u32'), write('y')],
    uniforms: [
      ...uniforms,
      u32('channels', channels),
      ...divisor('n', n),
      u32('pitch', pitch(y)),
      u32('last', entries - 1),
    ],
    body:
      QUOTIENT +
      main(/* wgsl */ `let channel = quotient(i, u.n, u.nInverse);
    let sample = i - channel * u.n;
    y[channel * u.pitch + sample] = table[min(index[sample], u.last) * u.channels + channel];`),
    grid,
  });
}

/**
 * The gradient of a table: y[e][c] = Σ of dy[c, n] over the n with index[n] = e, in the order of n; an index beyond the
 * entries counts for the last. Operands dy [channels, n, 1, 1], index [n] u32, y [entries, 1, 1, channels].
 */
export function gatherGradient(capabilities: Capabilities, { entries, channels, n }: GatherOptions): Routine {
  const { uniforms, grid, main } = walk(capabilities, entries * channels);
  return single({
    name: 'gatherGradient',
    bindings: [read('dy'), read('index', 'u32'), write('y')],
    uniforms: [
      ...uniforms,
      ...divisor('channels', channels),
      u32('n', n),
      u32('dyPitch', pitch([channels, n, 1, 1])),
      u32('yPitch', pitch([entries, 1, 1, channels])),
      u32('last', entries - 1),
    ],
    body:
      QUOTIENT +
      main(/* wgsl */ `let entry = quotient(i, u.channels, u.channelsInverse);
    let channel = i - entry * u.channels;
    var sum = 0.0;
    for (var k = 0u; k < u.n; k++) {
      if (min(index[k], u.last) == entry) { sum += dy[channel * u.dyPitch + k]; }
    }
    y[entry * u.yPitch + channel] = sum;`),
    grid,
  });
}
