import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bf16ToF32, f16ToF32, f32ToF16 } from '../../src/kernels/device/half.ts';

const golden = JSON.parse(readFileSync(new URL('../golden/half.json', import.meta.url), 'utf8')) as {
  f16ToF32: string;
  f32ToF16: string;
  stride: number;
  edges: number[];
  count: number;
};
const sha256 = (data: ArrayBufferView): string =>
  createHash('sha256')
    .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    .digest('hex');

describe('half', () => {
  it('widens every f16 as numpy does', () => {
    const half = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const out = new Float32Array(65536);
    f16ToF32(half, out);
    expect(sha256(out.filter((value) => !Number.isNaN(value)))).toBe(golden.f16ToF32);
    expect(out.filter(Number.isNaN)).toHaveLength(2 * 1023);
  });

  it('rounds f32 to f16 as numpy does, to nearest even, over the whole range', () => {
    const bits: number[] = [];
    for (let b = 0; b < 2 ** 32; b += golden.stride) bits.push(b);
    bits.push(...golden.edges, ...golden.edges.map((edge) => edge + 2 ** 31));
    const values = new Float32Array(Uint32Array.from(bits).buffer).filter((value) => !Number.isNaN(value));
    expect(values).toHaveLength(golden.count);
    const out = new Uint16Array(values.length);
    f32ToF16(values, out);
    expect(sha256(out)).toBe(golden.f32ToF16);
  });

  it('returns every f16 unchanged, and NaN as some NaN', () => {
    const half = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const wide = new Float32Array(65536);
    f16ToF32(half, wide);
    const back = new Uint16Array(65536);
    expect(f32ToF16(wide, back)).toBe(-1);
    const wrong = half.filter((h, i) =>
      Number.isNaN(wide[i]) ? (back[i]! & 0x7fff) <= 0x7c00 : back[i] !== h,
    );
    expect([...wrong]).toEqual([]);
  });

  it('returns the index of the first finite value without an f16', () => {
    const out = new Uint16Array(5);
    expect(f32ToF16(Float32Array.of(1, Infinity, 65519, NaN, -65520), out)).toBe(4);
    expect([...out]).toEqual([0x3c00, 0x7c00, 0x7bff, 0x7e00, 0xfc00]);
  });

  it('widens bf16 exactly and in place', () => {
    const out = new Float32Array(3);
    const brain = new Uint16Array(out.buffer, 6, 3);
    brain.set([0x3f80, 0xc020, 0x7f7f]);
    bf16ToF32(brain, out);
    expect([...out]).toEqual([1, -2.5, 3.3895313892515355e38]);
  });
});
