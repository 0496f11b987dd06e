// A kernel that fills a table with normals, to compare the device's noise with the host's.

import type { Capabilities } from '../../src/kernels/device/device.ts';
import { divisor, QUOTIENT, walk } from '../../src/kernels/device/indexing.ts';
import { ceilDiv, u32, write } from '../../src/kernels/device/kernel.ts';
import { type Routine, single } from '../../src/kernels/device/routine.ts';
import { keyOf, PHILOX, type Seed } from '../../src/kernels/diffusion/philox.ts';

export interface FillNormalOptions extends Seed {
  /** Rows of the table, each one noise index. */
  readonly rows: number;
  /** Elements of a row (c h w of a sample). */
  readonly elements: number;
  /** Noise index of the first row; default 0. */
  readonly first?: number;
}

/**
 * y[row][element] = normal(seed, first + row, element): a table of noise, plain row-major [rows][elements].
 * Operand y. One invocation writes the (up to) four elements of a counter.
 */
export function fillNormal(capabilities: Capabilities, options: FillNormalOptions): Routine {
  const { rows, elements, first = 0, seed, stream = 0 } = options;
  const [low, high] = keyOf(seed);
  const blocks = ceilDiv(elements, 4);
  const { uniforms, grid, main } = walk(capabilities, rows * blocks);
  return single({
    name: 'fillNormal',
    bindings: [write('y')],
    uniforms: [
      ...uniforms,
      ...divisor('blocks', blocks),
      u32('elements', elements),
      u32('first', first),
      u32('seedLow', low),
      u32('seedHigh', high),
      u32('stream', stream),
    ],
    body:
      QUOTIENT +
      PHILOX +
      main(/* wgsl */ `let row = quotient(i, u.blocks, u.blocksInverse);
    let block = i - row * u.blocks;
    let v = normals(block, u.first + row, u.stream, vec2u(u.seedLow, u.seedHigh));
    for (var k = 0u; k < 4; k++) {
      if (4 * block + k < u.elements) { y[row * u.elements + 4 * block + k] = v[k]; }
    }`),
    grid,
  });
}
