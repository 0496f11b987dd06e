import { describe, expect, it } from 'vitest';
import { addProduct, factorsOf } from '../../../src/graph/adapters/low-rank.ts';

const numbers = (length: number, seed: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => Math.sin(1 + seed + i * 1.7));

describe('the product of low rank', () => {
  it.each([
    [1, 1, 1],
    [3, 5, 2],
    [4, 7, 4],
    [9, 600, 5],
    [2, 513, 8],
  ])('%i x %i of rank %i is added to every part alike', (rows, columns, rank) => {
    const [up, down] = [numbers(rows * rank, 0), numbers(rank * columns, 3)];
    const expected = Float64Array.from({ length: rows * columns }, (_, i) => {
      const [r, c] = [Math.floor(i / columns), i % columns];
      let sum = i;
      for (let k = 0; k < rank; k++) sum += 0.3 * up[r * rank + k]! * down[k * columns + c]!;
      return sum;
    });
    const factors = factorsOf(up, down, rank);
    const part = (from: number, to: number): Float64Array => {
      const into = Float64Array.from({ length: to - from }, (_, i) => from + i);
      addProduct(factors, 0.3, into, from);
      return into;
    };
    const whole = part(0, rows * columns);
    whole.forEach((value, i) => {
      expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-11 * Math.max(1, rows * columns));
    });
    for (const cut of [1, columns - 1, columns, Math.floor(rows * columns * 0.6)].filter((at) => at > 0)) {
      expect(part(0, cut)).toEqual(whole.subarray(0, cut));
      expect(part(cut, rows * columns)).toEqual(whole.subarray(cut));
    }
  });
});
