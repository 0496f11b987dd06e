import { ShapeError } from '../../src/errors.ts';
import type { Capabilities } from '../../src/kernels/device/device.ts';
import { FAMILIES } from '../../src/kernels/device/families.ts';
import { f32ToF16 } from '../../src/kernels/device/half.ts';
import { pack } from '../../src/kernels/device/packing.ts';
import type { Packing } from '../../src/kernels/device/routine.ts';
import { type GemmSpec, gemm, packMatrix, packVector } from '../../src/kernels/gemm/gemm.ts';
import { F16_EPS, inHalves, maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere } from './variants.ts';

/**
 * Two by three products in buffers with gaps: the distances between rows, matrices and groups of matrices are
 * larger than necessary.
 */
const spec: GemmSpec = {
  m: 21,
  k: 11,
  columns: 74,
  batch: [2, 3],
  a: { pitch: 28, inner: 28 * 11 + 4, outer: 3 * (28 * 11 + 4) + 8, offset: 12 },
  b: { pitch: 80, inner: 80 * 11 + 16, outer: 3 * (80 * 11 + 16), offset: 4 },
  c: { pitch: 76, inner: 76 * 21 + 4, outer: 3 * (76 * 21 + 4) + 12, offset: 8 },
  bias: true,
  residual: true,
  activation: 'relu',
  scale: 0.5,
};

/** Returns the number of elements of a buffer with the matrices and some elements after them. */
const sizeOf = ({ outer = 0, offset = 0 }: GemmSpec['a']): number => offset + 2 * outer + 64;

function reference(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  bias: ArrayLike<number>,
  residual: ArrayLike<number>,
): Float64Array {
  const c = new Float64Array(sizeOf(spec.c)).fill(Number.NaN);
  const at = (
    { pitch, inner = 0, outer = 0, offset = 0 }: GemmSpec['a'],
    o: number,
    i: number,
    row: number,
  ) => offset + o * outer + i * inner + row * pitch;
  for (let o = 0; o < 2; o++)
    for (let i = 0; i < 3; i++)
      for (let m = 0; m < spec.m; m++)
        for (let j = 0; j < spec.columns; j++) {
          let sum = bias[m]!;
          for (let k = 0; k < spec.k; k++) sum += a[at(spec.a, o, i, k) + m]! * b[at(spec.b, o, i, k) + j]!;
          const to = at(spec.c, o, i, m) + j;
          c[to] = 0.5 * (Math.max(sum, 0) + residual[to]!);
        }
  return c;
}

describe.each(familiesHere)('gemm, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it('multiplies a batch of matrices with gaps between them, and writes nothing else', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const a = randomValues(sizeOf(spec.a), 1);
    const b = randomValues(sizeOf(spec.b), 2);
    const bias = randomValues(24, 3);
    const residual = randomValues(sizeOf(spec.c), 4);
    const kernel = gemm(here.capabilities, spec);
    const operands = kernel.bindings.map(({ name }) => name);
    expect(operands).toEqual(['a', 'b', 'bias', 'residual', 'c']);
    const { c } = await runRoutine(
      here,
      { steps: [{ kernel, operands }], scratch: {}, packing: {} },
      { constants: { a, b, bias, residual }, outputs: { c: [1, 1, 1, sizeOf(spec.c)] } },
    );
    const expected = reference(a, b, bias, residual);
    const places = [...expected.keys()].filter((i) => !Number.isNaN(expected[i]!));
    const { difference, index } = maxDifference(
      places.map((i) => c![i]!),
      places.map((i) => expected[i]!),
    );
    expect(difference, `at ${places[index]}`).toBeLessThan(
      inHalves(family) ? 2 * F16_EPS * Math.sqrt(spec.k) : 1e-5,
    );
    const written = c!.filter((value) => !Number.isNaN(value)).length;
    // 74 columns take 19 vec4s, so each row has two more values at its end.
    expect(written).toBe(6 * 21 * 76);
  });

  it('gives a column the same bytes among few and among many columns', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const a = randomValues(40 * 71, 1);
    const b = randomValues(68 * 71, 2);
    const columnsOf = async (columns: number) => {
      const kernel = gemm(here.capabilities, {
        m: 40,
        k: 71,
        columns,
        a: { pitch: 40 },
        b: { pitch: 68 },
        c: { pitch: 68 },
      });
      const { c } = await runRoutine(
        here,
        { steps: [{ kernel, operands: ['a', 'b', 'c'] }], scratch: {}, packing: {} },
        { constants: { a, b }, outputs: { c: [1, 1, 1, 40 * 68] } },
      );
      return Array.from({ length: 40 }, (_, m) => c!.slice(m * 68, m * 68 + 20)).flatMap((row) => [...row]);
    };
    expect(await columnsOf(20)).toEqual(await columnsOf(68));
  });
});

describe('gemm as data', () => {
  const capabilities = {
    subgroupSize: 8,
    matrix: [{ M: 8, N: 8, K: 8 }],
    workgroupBytes: 32768,
    maxInvocations: 1024,
    software: true,
  } as Partial<Capabilities> as Capabilities;
  const dense = (m: number, k: number, columns: number): GemmSpec => ({
    m,
    k,
    columns,
    a: { pitch: Math.ceil(m / 4) * 4 },
    b: { pitch: Math.ceil(columns / 4) * 4 },
    c: { pitch: Math.ceil(columns / 4) * 4 },
  });

  it.each(FAMILIES)('has the same WGSL for all shapes with one tile, %s', (family) => {
    const texts = new Set(
      [dense(128, 64, 64), dense(256, 5, 33), dense(320, 777, 256)].map(
        (shape) => gemm({ ...capabilities, family }, shape).wgsl,
      ),
    );
    expect(texts.size).toBe(1);
  });

  it.each(FAMILIES)('folds a grid that is too long into two dimensions, %s', (family) => {
    const { grid } = gemm({ ...capabilities, family }, { ...dense(1, 1, 20), batch: [1000, 1000] });
    expect(Math.max(...grid)).toBeLessThanOrEqual(65535);
    expect(grid[0] * grid[1] * grid[2]).toBeGreaterThanOrEqual(1e6);
  });

  it('rejects rows that do not start at a vec4', () => {
    const shape = { ...dense(8, 8, 8), b: { pitch: 10 } };
    expect(() => gemm({ ...capabilities, family: 'plain' }, shape)).toThrow(ShapeError);
    expect(() => gemm({ ...capabilities, family: 'plain' }, shape)).toThrow(
      'expected b.pitch to be a multiple of 4, got 10',
    );
  });

  it('packs weights k-major, with rows padded with zeros', () => {
    const floats = (packing: Packing, ...values: number[]) => [
      ...new Float32Array(pack(packing, Float32Array.from(values)).buffer),
    ];
    expect(floats(packMatrix(3, 2, 'f32'), 1, 2, 3, 4, 5, 6)).toEqual([1, 3, 5, 0, 2, 4, 6, 0]);
    expect(packMatrix(3, 2, 'f32').bytes).toBe(32);
    expect(packMatrix(3, 2, 'f16').bytes).toBe(16);
    expect(floats(packVector(5), 1, 2, 3, 4, 5)).toEqual([1, 2, 3, 4, 5, 0, 0, 0]);
  });

  it('rounds to f16, ties to even, including denormals, the largest value and larger ones', () => {
    const pairs: readonly (readonly [number, number])[] = [
      [0, 0],
      [-0, 0x8000],
      [1, 0x3c00],
      [-2, 0xc000],
      [1 + 2 ** -11, 0x3c00],
      [1 + 3 * 2 ** -11, 0x3c02],
      [65504, 0x7bff],
      [65519.99, 0x7bff],
      [65520, 0x7c00],
      [Number.NEGATIVE_INFINITY, 0xfc00],
      [Number.NaN, 0x7e00],
      [2 ** -24, 1],
      [2 ** -25, 0],
      [3 * 2 ** -25, 2],
      [2 ** -14, 0x400],
      [2 ** -14 - 2 ** -25, 0x400],
      [1023 * 2 ** -24, 0x3ff],
    ];
    const halves = new Uint16Array(pairs.length);
    f32ToF16(
      Float32Array.from(pairs, ([value]) => value),
      halves,
    );
    expect([...halves]).toEqual(pairs.map(([, bits]) => bits));
  });
});
