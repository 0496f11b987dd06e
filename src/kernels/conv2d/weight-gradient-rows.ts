// The gradient of weights by a product of two factors along their rows, for the family of software adapters: dy as it is,
// and x as it is for a kernel of one pixel, otherwise its gathered taps.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, pad4 } from '../device/kernel.ts';
import type { Routine, Step } from '../device/routine.ts';
import { columns, pitch } from '../device/tensor.ts';
import { gemmRows } from '../gemm/gemm-rows.ts';
import type { Geometry } from './conv2d-shape.ts';
import { gatherTaps } from './conv2d-taps.ts';
import { fold } from './weight-gradient-fold.ts';

/** Bytes of gathered pixels in a pass. */
const PASS_BYTES = 2 ** 25;
/** A sum is split into parts until there are this many workgroups, but not into parts of fewer columns than this. */
const GROUPS = 32;
const FEWEST = 256;

/**
 * Returns a routine for y of `weightGradient`. Sums are split into parts of at most `block` columns and of equal length,
 * so that the cores get equal work.
 */
export function rowsWeightGradient(capabilities: Capabilities, geometry: Geometry, block: number): Routine {
  const { x, y: dy, kernel, stride, top, left } = geometry;
  const { maxBindingBytes } = capabilities;
  const [m, n] = [dy[0], x[0] * kernel[0] * kernel[1]];
  const row = pad4(n);
  const all = columns(dy);
  const asItIs =
    kernel[0] === 1 && kernel[1] === 1 && stride === 1 && columns(x) === all && top === 0 && left === 0;
  const columnsOfParts = Math.floor(maxBindingBytes / 4 / (m * row)) * block;
  const columnsOfTaps = asItIs
    ? all
    : Math.floor(Math.min(PASS_BYTES, maxBindingBytes) / 4 / n / block) * block;
  const most = Math.max(block, Math.min(columnsOfParts, columnsOfTaps));
  const tiles = ceilDiv(m, 32) * ceilDiv(n, 32);
  const partsOf = (count: number) =>
    Math.max(ceilDiv(count, block), Math.min(ceilDiv(count, FEWEST), ceilDiv(GROUPS, tiles)));
  const lengthOf = (count: number) => pad4(ceilDiv(count, partsOf(count)));
  const whole = ceilDiv(all, lengthOf(Math.min(most, all))) === 1;
  const steps: Step[] = [];
  let held = 1;
  for (let first = 0; first < all; first += most) {
    const count = Math.min(most, all - first);
    const part = lengthOf(count);
    const parts = ceilDiv(count, part);
    held = Math.max(held, parts);
    const taps = pad4(count);
    if (!asItIs) steps.push(gatherTaps(geometry, first, taps));
    steps.push({
      kernel: gemmRows(capabilities, {
        m,
        n,
        k: count,
        a: { pitch: pitch(dy), offset: first },
        b: asItIs ? { pitch: pitch(x), offset: first } : { pitch: taps },
        c: { pitch: row },
        part,
      }),
      operands: ['dy', asItIs ? 'x' : 'taps', whole ? 'y' : 'parts'],
    });
    if (!whole) steps.push(fold(capabilities, m * row, parts, first > 0));
  }
  return {
    steps,
    scratch: {
      ...(asItIs ? {} : { taps: 4 * n * pad4(Math.min(most, all)) }),
      ...(whole ? {} : { parts: 4 * held * m * row }),
    },
    packing: {},
  };
}
