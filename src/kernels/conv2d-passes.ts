// Convolutions that are a transform, a batch of matrix products and a transform back, cut into passes.

import type { Geometry } from './conv2d-shape.ts';
import type { Capabilities } from './device.ts';
import { gemm } from './gemm.ts';
import { ceilDiv } from './kernel.ts';
import type { Packing, Routine, Step } from './routine.ts';

/** Columns `first`..`first + count` of all; `pitch` elements from one row of scratch to the next. */
export interface ColumnRange {
  readonly first: number;
  readonly count: number;
  readonly pitch: number;
}

export interface Transformed {
  /** Matrix products, one a place of the transform. */
  readonly places: number;
  /** Columns of each product over the whole batch. */
  readonly columns: number;
  /** Weights [place][ic][oc padded to 4], transformed from [oc, ic, kh, kw]. */
  readonly weight: Packing;
  /** x to `transformed` [place][ic][columns]. */
  readonly input: (range: ColumnRange) => Step;
  /** `products` [place][oc][columns] to y. */
  readonly output: (range: ColumnRange) => Step;
}

export const pad4 = (count: number): number => ceilDiv(count, 4) * 4;

/** Bytes that one operand of the products may take in a pass: more would only leave the caches. */
const PASS_BYTES = 2 ** 25;

/** The routine of a transformed convolution; a column's arithmetic is the same in whatever pass it falls. */
export function inPasses(
  capabilities: Capabilities,
  { x: [ic], y: [oc] }: Geometry,
  { places, columns, weight, input, output }: Transformed,
): Routine {
  const bytes = 4 * places * Math.max(ic, oc) * columns;
  const passes = ceilDiv(bytes, Math.min(PASS_BYTES, capabilities.maxBindingBytes));
  const most = ceilDiv(ceilDiv(columns, passes), 64) * 64;
  const pitch = Math.min(most, pad4(columns));
  const steps: Step[] = [];
  for (let first = 0; first < columns; first += most) {
    const range = { first, count: Math.min(most, columns - first), pitch };
    const product = gemm(capabilities, {
      m: oc,
      k: ic,
      columns: range.count,
      batch: [1, places],
      a: { pitch: pad4(oc), inner: ic * pad4(oc) },
      b: { pitch, inner: ic * pitch },
      c: { pitch, inner: oc * pitch },
    });
    steps.push(
      input(range),
      { kernel: product, operands: ['weight', 'transformed', 'products'] },
      output(range),
    );
  }
  return {
    steps,
    scratch: { transformed: 4 * places * ic * pitch, products: 4 * places * oc * pitch },
    packing: { weight },
  };
}

/**
 * Packs weights [oc, ic, 3, 3] as [place][ic][oc padded to 4]: place (i, j) holds R g Rᵀ, in f32 whatever the weights
 * are stored as.
 */
export function packTransformed(
  name: string,
  { x: [ic], y: [oc] }: Geometry,
  R: readonly (readonly number[])[],
): Packing {
  const size = R.length;
  const row = pad4(oc);
  return {
    key: `${name}.${oc}x${ic}`,
    bytes: 4 * size * size * ic * row,
    pack: (values) => {
      const out = new Float32Array(size * size * ic * row);
      const half = new Float64Array(size * 3);
      for (let o = 0; o < oc; o++)
        for (let c = 0; c < ic; c++) {
          const g = (o * ic + c) * 9;
          R.forEach(([r0, r1, r2], i) => {
            for (let k = 0; k < 3; k++)
              half[3 * i + k] = r0! * values[g + k]! + r1! * values[g + 3 + k]! + r2! * values[g + 6 + k]!;
          });
          for (let i = 0; i < size; i++)
            R.forEach(([r0, r1, r2], j) => {
              out[((size * i + j) * ic + c) * row + o] =
                r0! * half[3 * i]! + r1! * half[3 * i + 1]! + r2! * half[3 * i + 2]!;
            });
        }
      return out;
    },
  };
}
