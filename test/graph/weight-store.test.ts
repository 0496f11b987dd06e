// Tests that weights arrive on the device unchanged, and that JavaScript never holds more than two parts of them.

import { describe, expect, it } from 'vitest';
import { ModelError } from '../../src/errors.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import type { Constant } from '../../src/graph/ops/value.ts';
import { pack } from '../../src/kernels/device/packing.ts';
import { readBack } from '../../src/kernels/device/runtime.ts';
import { packMatrix } from '../../src/kernels/gemm/gemm.ts';
import { randomValues, testDevice } from '../kernels/harness.ts';

const PART = 2 ** 20;

/** Returns a constant that counts its reads. */
function counted(values: Float32Array<ArrayBuffer>) {
  const reads: { from: number; length: number }[] = [];
  const memory = new Set<ArrayBufferLike>();
  const constant: Constant = {
    name: 'counted',
    length: values.length,
    values: () => Promise.reject(new Error('expected reads of parts, got one of the whole')),
    async read(from, into) {
      reads.push({ from, length: into.length });
      memory.add(into.buffer);
      if (into instanceof Float32Array) into.set(values.subarray(from, from + into.length));
      else throw new Error('expected reads of f32, got one of f16');
    },
  };
  return { constant, reads, memory };
}

describe('weightStore', () => {
  it('reads a packed weight once, in whole rows, into two parts of bounded size', async () => {
    const device = await testDevice();
    const [out, inputs] = [2500, 1001];
    const values = randomValues(out * inputs);
    const { constant, reads, memory } = counted(values);
    const packing = packMatrix(out, inputs, 'f32');
    const store = weightStore(device);
    const [range, again] = await Promise.all([
      store.get(constant, packing),
      store.get(constant, packMatrix(out, inputs, 'f32')),
    ]);
    expect(again).toBe(range);
    expect(reads.reduce((sum, { length }) => sum + length, 0)).toBe(out * inputs);
    for (const { from, length } of reads) {
      expect(from % inputs).toBe(0);
      expect(length % inputs).toBe(0);
      expect(length).toBeLessThanOrEqual(PART);
    }
    expect(memory.size).toBe(2);
    expect([...memory].reduce((sum, { byteLength }) => sum + byteLength, 0)).toBeLessThanOrEqual(8 * PART);
    const found = Buffer.from(await readBack(device, { ...range, size: packing.bytes }));
    expect(found.equals(pack(packing, values))).toBe(true);
    expect(store.bytes()).toBe(packing.bytes);
    store.destroy();
  });

  it('reads constants that are not packed directly into memory of the device', async () => {
    const device = await testDevice();
    const values = randomValues(4099);
    const { constant, reads } = counted(values);
    const store = weightStore(device);
    const range = await store.get(constant, undefined);
    expect(reads).toEqual([{ from: 0, length: 4099 }]);
    const found = new Float32Array(await readBack(device, range));
    expect(found.slice(0, 4099)).toEqual(values);
    store.destroy();
  });

  it('rejects a value outside the range of f16, names the weight, and loads other weights', async () => {
    const store = weightStore(await testDevice());
    const values = randomValues(12);
    values[7] = 70000;
    const constant = { name: 'large', length: 12, values: async () => values };
    const packing = packMatrix(3, 4, 'f16');
    await expect(store.get(constant, packing)).rejects.toThrow(ModelError);
    await expect(store.get(constant, packing)).rejects.toThrow(
      /large: expected values within ±65504 \(f16\), got 70000 at 7/,
    );
    values[7] = 1;
    await expect(store.get(constant, packing)).resolves.toMatchObject({ size: 32 });
    store.destroy();
  });
});
