// Rows of a table picked by index: class embeddings, and time embeddings computed once per noise level.

import type { Capabilities } from './device.ts';
import { divisor, QUOTIENT, walk } from './indexing.ts';
import { defineKernel, read, u32, write } from './kernel.ts';
import { type Routine, single } from './routine.ts';
import { pitch, type Shape } from './tensor.ts';

export interface GatherOptions {
  /** Rows of the table; an index beyond them picks the last. */
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
  const kernel = defineKernel({
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
  return single(kernel, ['table', 'index', 'y']);
}
