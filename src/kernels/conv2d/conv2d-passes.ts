// Convolutions that consist of a transform, a batch of matrix products and an inverse transform, split into passes.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, pad4 } from '../device/kernel.ts';
import type { Packing, Routine, Step } from '../device/routine.ts';
import { gemm, packedPitch } from '../gemm/gemm.ts';
import { transformWeights } from './conv2d-factors.ts';
import type { Geometry } from './conv2d-shape.ts';
import { packRows } from './conv2d-weights.ts';
import { CONVOLUTIONS } from './families.ts';

/** The columns `first`..`first + count` of a pass; rows of scratch are `pitch` elements apart. */
export interface ColumnRange {
  readonly first: number;
  readonly count: number;
  readonly pitch: number;
  /** Distance in elements between places of `transformed` and of `products`. */
  readonly inPlace: number;
  readonly outPlace: number;
}

interface Transformed {
  /** Columns of each product over the whole batch. */
  readonly columns: number;
  /** R of the weights' transform R g Rᵀ; one row per place in one dimension. */
  readonly weights: readonly (readonly number[])[];
  /** Computes `transformed` [place][ic][columns] from x. */
  readonly input: (range: ColumnRange) => Step;
  /** Computes y from `products` [place][oc][columns]. */
  readonly output: (range: ColumnRange) => Step;
}

/**
 * Elements between places, one cache line. Without it strides are powers of two and all places map to one cache set.
 */
const APART = 16;

/** Returns the routine of a transformed convolution. A column's arithmetic does not depend on its pass. */
export function inPasses(
  capabilities: Capabilities,
  geometry: Geometry,
  { columns, weights, input, output }: Transformed,
): Routine {
  const {
    x: [ic],
    y: [oc],
    compact,
  } = geometry;
  const { family, maxBindingBytes } = capabilities;
  const places = weights.length ** 2;
  // Compact weights are transformed in blocks of output channels that are small enough to bind. If there are
  // several blocks, every pass transforms all of them, so passes are then as large as can be bound.
  const each = compact ? blockChannels(capabilities, geometry, weights.length) : oc;
  const bytes = 4 * places * Math.max(ic, oc) * columns;
  const passes = ceilDiv(
    bytes,
    each < oc ? maxBindingBytes : Math.min(CONVOLUTIONS[family].passBytes, maxBindingBytes),
  );
  const bindable = maxBindingBytes / 4 / places - APART;
  const most = Math.max(
    64,
    Math.min(ceilDiv(ceilDiv(columns, passes), 64), Math.floor(bindable / Math.max(ic, oc) / 64)) * 64,
  );
  const pitch = Math.min(most, pad4(columns));
  const inPlace = ic * pitch + APART;
  const outPlace = oc * pitch + APART;
  const factors = (first: number) =>
    transformWeights(geometry, weights, { first, count: Math.min(each, oc - first) });
  const steps: Step[] = compact && each === oc ? [factors(0)] : [];
  for (let first = 0; first < columns; first += most) {
    const count = Math.min(most, columns - first);
    const range = { first, count, pitch, inPlace, outPlace };
    steps.push(input(range));
    for (let from = 0; from < oc; from += each) {
      const m = Math.min(each, oc - from);
      const kernel = gemm(capabilities, {
        m,
        k: ic,
        columns: count,
        batch: [1, places],
        a: { pitch: packedPitch(m), inner: ic * packedPitch(m) },
        b: { pitch, inner: inPlace },
        c: { pitch, inner: outPlace, offset: from * pitch },
      });
      if (each < oc) steps.push(factors(from));
      steps.push({ kernel, operands: [compact ? 'factors' : 'weight', 'transformed', 'products'] });
    }
    steps.push(output(range));
  }
  return {
    steps,
    scratch: {
      transformed: 4 * places * inPlace,
      products: 4 * places * outPlace,
      ...(compact ? { factors: 4 * places * ic * packedPitch(each) } : {}),
    },
    packing: { weight: compact ? packRows(geometry) : packTransformed(geometry, weights) },
  };
}

/** Returns the bytes of weights transformed to `size` x `size` places, [place][ic][oc] in f32. */
export const factorBytes = ({ x, y }: Geometry, size: number): number =>
  4 * size ** 2 * x[0] * packedPitch(y[0]);

/** Returns the output channels whose transformed weights can be bound at once: all, or a multiple of a GEMM's tile. */
function blockChannels({ maxBindingBytes }: Capabilities, geometry: Geometry, size: number): number {
  const blocks = ceilDiv(factorBytes(geometry, size), maxBindingBytes);
  return blocks === 1 ? geometry.y[0] : Math.max(32, Math.floor(geometry.y[0] / blocks / 32) * 32);
}

/**
 * Packs weights [oc, ic, 3, 3] as factors of the products, [place][ic][oc]. Place (i, j) holds that element
 * of R g Rᵀ, in f32 for every type of weights, because the way back from the products magnifies roundings of the
 * factors. With 128 channels and random weights, weights in f16 change outputs by 2e-4 of their standard deviation.
 * Factors in f16 would change them by 2e-3 with tiles of 4, and by 3e-2 with tiles of 7, where 9 % of the factors are
 * subnormal. Errors of shipped models would change by 6.7e-3 (`fashion-mnist`, tiles of 7) and 5.5e-4 (`cifar-10`, tiles of
 * 4) in f16 instead of 5.8e-4 and 1.7e-4. This would save 9 of 68 MB and 4.5 of 55 MB on the device.
 */
function packTransformed({ x: [ic], y: [oc] }: Geometry, R: readonly (readonly number[])[]): Packing {
  const size = R.length;
  const row = packedPitch(oc);
  return {
    key: `conv2d.transformed.${R.flat().join()}.${oc}x${ic}`,
    bytes: 4 * size * size * ic * row,
    dtype: 'f32',
    row: 9 * ic,
    place: (values, from, packed) => {
      const out = new Float32Array(packed);
      const half = new Float64Array(size * 3);
      const first = from / (9 * ic);
      const rows = values.length / (9 * ic);
      for (let c = 0; c < ic; c++)
        for (let o = 0; o < rows; o++) {
          const g = (o * ic + c) * 9;
          R.forEach(([r0, r1, r2], i) => {
            for (let k = 0; k < 3; k++)
              half[3 * i + k] = r0! * values[g + k]! + r1! * values[g + 3 + k]! + r2! * values[g + 6 + k]!;
          });
          for (let i = 0; i < size; i++)
            R.forEach(([r0, r1, r2], j) => {
              out[((size * i + j) * ic + c) * row + first + o] =
                r0! * half[3 * i]! + r1! * half[3 * i + 1]! + r2! * half[3 * i + 2]!;
            });
        }
    },
  };
}
