// Tests packed weights against their definition, packed whole and in parts of the sizes in which files are read.

import { describe, expect, it } from 'vitest';
import { conv2d } from '../../src/kernels/conv2d/conv2d.ts';
import type { Capabilities } from '../../src/kernels/device/device.ts';
import { f32ToF16 } from '../../src/kernels/device/half.ts';
import { pack } from '../../src/kernels/device/packing.ts';
import type { Packing } from '../../src/kernels/device/routine.ts';
import { packMatrix, packVector } from '../../src/kernels/gemm/gemm.ts';
import { randomValues } from './harness.ts';

const capabilities: Capabilities = {
  family: 'subgroup',
  subgroupSize: 8,
  f16: false,
  timestamps: false,
  storageAlignment: 16,
  maxBindingBytes: 2 ** 27,
  maxBufferBytes: 2 ** 30,
  workgroupBytes: 2 ** 14,
  maxInvocations: 256,
  maxStorageBuffers: 8,
  description: 'none',
  software: true,
};

const convolution = (ic: number, oc: number, side: number, rest: object = {}): Packing =>
  conv2d(capabilities, {
    x: [ic, 1, side, side],
    outChannels: oc,
    kernel: [3, 3],
    padding: [1, 1, 1, 1],
    bias: false,
    weights: 'f32',
    ...rest,
  }).packing.weight!;

const cases: readonly (readonly [name: string, packing: Packing, elements: number])[] = [
  ['matrix, f32', packMatrix(67, 41, 'f32'), 67 * 41],
  ['matrix, f16', packMatrix(67, 41, 'f16'), 67 * 41],
  ['vector', packVector(67), 67],
  ['rows of a convolution, f16', convolution(5, 37, 8, { stride: 2, weights: 'f16' }), 5 * 37 * 9],
  ["Winograd's transform", convolution(9, 37, 8), 9 * 37 * 9],
  ["Winograd's transform along the rows", convolution(9, 15, 8), 9 * 15 * 9],
  ['the transform of an upsampling convolution', convolution(9, 37, 8, { upsample: 2 }), 9 * 37 * 9],
];

/** Returns the values in the type that the packing takes. */
function elementsOf({ dtype }: Packing, values: Float32Array<ArrayBuffer>) {
  if (dtype === 'f32') return values;
  const halves = new Uint16Array(values.length);
  f32ToF16(values, halves);
  return halves;
}

describe('packings', () => {
  it.each(cases)('%s: parts give the same bytes as the whole', (_, packing, count) => {
    const values = randomValues(count, 3);
    const whole = pack(packing, values);
    expect(whole.byteLength).toBe(packing.bytes);
    expect(new Set(whole).size).toBeGreaterThan(100);
    const elements = elementsOf(packing, values);
    for (const rows of [1, 3, 32, 50]) {
      const packed = new ArrayBuffer(packing.bytes);
      for (let from = 0; from < count; from += rows * packing.row)
        packing.place(elements.slice(from, from + rows * packing.row), from, packed);
      expect(Buffer.from(packed).equals(whole)).toBe(true);
    }
  });

  it.each(['f32', 'f16'] as const)(
    'a matrix of %s is transposed, with its rows padded with zeros',
    (dtype) => {
      const [out, inputs] = [67, 41];
      const values = randomValues(out * inputs, 4);
      const elements = elementsOf(packMatrix(out, inputs, dtype), values);
      const packed = pack(packMatrix(out, inputs, dtype), values).buffer;
      const found = dtype === 'f16' ? new Uint16Array(packed) : new Float32Array(packed);
      const expected = found.map((_, i) => {
        const [k, o] = [Math.floor(i / 68), i % 68];
        return o < out ? elements[o * inputs + k]! : 0;
      });
      expect([...found]).toEqual([...expected]);
    },
  );
});
