import type { Family } from '../../src/kernels/device/device.ts';
import { normal, normals, philox, type Seed } from '../../src/kernels/diffusion/philox.ts';
import { fillNormal } from './fill-normal.ts';
import { maxDifference, runRoutine, testDevice } from './harness.ts';
import { describe, expect, it } from './test-functions.ts';

describe('philox', () => {
  // The known answers from the distribution of Random123 (kat_vectors, philox4x32 10).
  it.for([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)('gives the known words %#', ([counter, key, words]) => {
    expect(philox(counter, key)).toEqual(words);
  });

  it('uses element, noise index, seed and stream as counter and key', () => {
    const seed: Seed = { seed: 0x299f31d0a4093822n, stream: 5 };
    const [word] = philox([3, 7, 0, 5], [0xa4093822, 0x299f31d0]);
    const radius = Math.sqrt(-2 * Math.log(((word >>> 9) + 0.5) / 2 ** 23));
    const [x, y] = normals(seed, 7, 3);
    expect(Math.hypot(x, y)).toBeCloseTo(radius, 12);
    expect(normal(seed, 7, 13)).toBe(y);
  });
});

// The subgroup family uses the plain family's kernel.
const FAMILIES: readonly Family[] = ['plain', 'tile'];

describe.each(FAMILIES)('normals, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  const seed: Seed = { seed: 0x0123456789abcdefn };
  const table = async (rows: number, elements: number, options: Seed & { first?: number } = seed) => {
    const here = (await device)!;
    const routine = fillNormal(here.capabilities, { ...options, rows, elements });
    const { y } = await runRoutine(here, routine, { outputs: { y: [1, 1, 1, rows * elements] } });
    return y!;
  };

  it.for([
    { rows: 1, elements: 1 },
    { rows: 3, elements: 5 },
    { rows: 5, elements: 49 },
    { rows: 64, elements: 784 },
    { rows: 2, elements: 12288 },
  ])('are the host twin: $rows rows of $elements', async ({ rows, elements }, context) => {
    if (!(await device)) return context.skip(`the ${family} family is not possible on this adapter`);
    const options = { seed: 0xfedcba9876543210n, stream: 0xffffffff, first: 0xfffffff0 };
    const y = await table(rows, elements, options);
    const expected = y.map((_, i) =>
      normal(options, (options.first + Math.floor(i / elements)) >>> 0, i % elements),
    );
    expect(maxDifference(y, expected).difference).toBeLessThan(3e-6);
  });

  it('have the moments of a normal distribution', async (context) => {
    if (!(await device)) return context.skip(`the ${family} family is not possible on this adapter`);
    const y = await table(1024, 1024);
    const moment = (k: number) => y.reduce((sum, v) => sum + v ** k, 0) / y.length;
    const deviation = 1 / 1024; // the standard deviation of the mean of a million values
    expect(Math.abs(moment(1))).toBeLessThan(4 * deviation);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(4 * Math.sqrt(2) * deviation);
    expect(Math.abs(moment(3))).toBeLessThan(4 * Math.sqrt(15) * deviation);
    expect(Math.abs(moment(4) - 3)).toBeLessThan(4 * Math.sqrt(96) * deviation);
    const beyond = (limit: number) => y.filter((v) => Math.abs(v) > limit).length / y.length;
    expect(beyond(1)).toBeCloseTo(0.3173, 2);
    expect(beyond(3)).toBeCloseTo(0.0027, 3);
    expect(Math.max(...y.map(Math.abs).subarray(0, 65536))).toBeLessThan(5.8); // sqrt(2 · 24 ln 2)
  });

  it('are independent of neighbours, noise indices, seeds and streams', async (context) => {
    if (!(await device)) return context.skip(`the ${family} family is not possible on this adapter`);
    const [rows, elements] = [256, 1024];
    const count = rows * elements;
    const base = await table(rows, elements);
    const correlation = (a: Float32Array, b: Float32Array, lag = 0, f = (v: number) => v) => {
      let sum = 0;
      for (let i = lag; i < count; i++) sum += f(a[i]!) * f(b[i - lag]!);
      return Math.abs(sum / (count - lag));
    };
    const square = (v: number) => (v * v - 1) / 2 ** 0.5;
    const limit = 4.5 / Math.sqrt(count);
    for (const lag of [1, 2, 3, 4, 5, elements]) {
      expect(correlation(base, base, lag)).toBeLessThan(limit);
      expect(correlation(base, base, lag, square)).toBeLessThan(limit);
    }
    for (const other of [
      { seed: seed.seed + 1n },
      { seed: seed.seed + (1n << 32n) },
      { ...seed, stream: 1 },
      { ...seed, first: 1024 },
    ])
      expect(correlation(base, await table(rows, elements, other))).toBeLessThan(limit);
  });
});
