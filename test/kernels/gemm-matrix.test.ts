import { afterAll, describe, expect, it } from 'vitest';
import { type Check, checkMatrixConv, checkMatrixGemm, checkThreadGemm } from '../../bench/matrix-check.ts';
import { openMatrixDevice } from '../../bench/matrix-device.ts';
import { conv2dMatrix, convFault, type MatrixConv } from '../../bench/matrix-kernels/conv2d-matrix.ts';
import { gemmMatrix, type MatrixGemm } from '../../bench/matrix-kernels/gemm-matrix.ts';
import { gemmThreadTile, type ThreadTile } from '../../bench/matrix-kernels/gemm-thread-tile.ts';
import { type MatrixTile, tileFault } from '../../bench/matrix-kernels/matrix-tile.ts';
import { ShapeError } from '../../src/errors.ts';
import { emulated } from './matrix-emulation.ts';

const MISSING = 'this device has no matrix units: their kernels run only in emulation';
const ALL = Number.POSITIVE_INFINITY;
const opened = openMatrixDevice('safe').catch(() => undefined);
afterAll(async () => (await opened)?.device.close());

const TILE: MatrixTile = {
  unit: { M: 8, N: 8, K: 8 },
  rows: 32,
  columns: 48,
  depth: 16,
  subgroupRows: 2,
  subgroupColumns: 2,
  stage: 'workgroup',
  load: 8,
  pipeline: 'registers',
  pad: 8,
  a: 'k-major',
};
const BIG: MatrixTile = { ...TILE, unit: { M: 16, N: 16, K: 16 }, rows: 64, columns: 64, depth: 32 };
const NARROW: MatrixTile = { ...BIG, unit: { M: 16, N: 8, K: 16 }, rows: 32, columns: 32 };
const SHALLOW: MatrixTile = { ...BIG, unit: { M: 16, N: 8, K: 8 }, rows: 32, columns: 32, depth: 8 };

/** A product of two by two tiles and three strips, with pitches larger than the rows. */
const specOf = (tile: MatrixTile, more: Partial<MatrixGemm> = {}): MatrixGemm => {
  const [m, n, k] = [2 * tile.rows, 2 * tile.columns, 3 * tile.depth];
  const aPitch = (tile.a === 'k-major' ? m : k) + 8;
  return { m, n, k, aPitch, bPitch: n + 16, cPitch: n + 8, out: 'f32', ...more };
};
/** A convolution whose rows and columns end inside a tile, with two strips of channels. */
const convOf = (tile: MatrixTile, more: Partial<MatrixConv> = {}): MatrixConv => ({
  x: [2 * tile.depth, 2, 6, 16],
  outChannels: tile.rows + tile.unit.M,
  stride: 1,
  xType: 'f16',
  out: 'f32',
  ...more,
});

const expectClose = ({ error, bound }: Check): void => expect(error).toBeLessThanOrEqual(bound);
const nameOf = (part: object): string => JSON.stringify(part).replaceAll('"', '') || 'as it is';

describe('gemm on matrix units', () => {
  const tiles: readonly Partial<MatrixTile>[] = [
    {},
    { pipeline: 'none' },
    { pipeline: 'double', load: 4 },
    { load: 2, pad: 0 },
    { a: 'm-major', pipeline: 'double' },
    { stage: 'direct' },
    { stage: 'direct', a: 'm-major' },
    { rows: 40, subgroupRows: 1 },
  ];
  it.for(tiles.map((part) => [nameOf(part), part] as const))('multiplies, %s', async ([, part], { skip }) => {
    const here = await opened;
    const unit = here?.units.find(({ M, N, K }) => M === 8 && N === 8 && K === 8) ?? here?.units[0];
    if (!here || !unit) return skip(MISSING);
    const tile = { ...(unit.M === 8 ? TILE : BIG), unit, ...(unit.M === 8 ? part : { ...part, rows: 64 }) };
    const wide = tile.stage === 'direct' ? {} : ({ bType: 'f32' } as const);
    for (const more of [{}, { ...wide, out: 'f16', bias: true }] as const) {
      const spec = specOf(tile, more);
      expectClose(await checkMatrixGemm(here.device, gemmMatrix(tile, here.lanes, spec), tile, spec, ALL));
    }
  });

  it.for([
    ['f16', 1, 'f32', false],
    ['f32', 1, 'f16', true],
    ['f16', 2, 'f16', false],
    ['f32', 2, 'f32', true],
  ] as const)(
    'convolves %s with stride %s into %s, bias %s',
    async ([xType, stride, out, bias], { skip }) => {
      const here = await opened;
      const unit = here?.units[0];
      if (!here || !unit) return skip(MISSING);
      const tile: MatrixTile = { ...(unit.M === 8 ? TILE : BIG), unit, pipeline: 'double', depth: 16 };
      const conv = convOf(tile, { xType, stride, out, bias });
      expectClose(await checkMatrixConv(here.device, conv2dMatrix(tile, here.lanes, conv), tile, conv, ALL));
    },
  );
});

describe('addresses of units of other sizes, emulated', () => {
  const lanes = 32;
  const cases: readonly (readonly [string, MatrixTile, Partial<MatrixGemm>])[] = [
    ['16x16x16', BIG, {}],
    ['16x16x16 double, f16 and bias', { ...BIG, pipeline: 'double' }, { out: 'f16', bias: true }],
    ['16x16x16 m-major', { ...BIG, a: 'm-major' }, {}],
    ['16x16x16 direct', { ...BIG, stage: 'direct' }, {}],
    ['16x16x16 rows of 80', { ...BIG, rows: 160, subgroupRows: 5, columns: 32, subgroupColumns: 1 }, {}],
    ['16x8x16', NARROW, {}],
    ['16x8x16 f16 and bias', { ...NARROW, load: 4 }, { out: 'f16', bias: true }],
    ['16x8x8', { ...SHALLOW, pipeline: 'none' }, { bias: true }],
    ['16x16x16, f32 in', BIG, { bType: 'f32' }],
  ];
  it.each(cases)('multiplies, %s', async (_, tile, more) => {
    const here = await opened;
    if (!here) throw new Error('no device');
    const spec = specOf(tile, more);
    const kernel = emulated(gemmMatrix(tile, lanes, spec), tile, lanes);
    expectClose(await checkMatrixGemm(here.device, kernel, tile, spec, 20_000));
  });

  const convolutions: readonly (readonly [string, MatrixTile, Partial<MatrixConv>])[] = [
    ['16x16x16', { ...BIG, depth: 16 }, {}],
    [
      '16x16x16 double, f32 in, f16 out',
      { ...BIG, rows: 32, columns: 64, depth: 16, pipeline: 'double' },
      { xType: 'f32', out: 'f16', bias: true },
    ],
    ['16x16x16 stride 2', { ...BIG, rows: 32, depth: 16 }, { stride: 2, x: [32, 2, 16, 32] }],
    [
      '16x8x16 stride 2, f32',
      { ...NARROW, depth: 16, load: 4 },
      { stride: 2, xType: 'f32', x: [16, 1, 8, 16] },
    ],
    ['16x8x8', SHALLOW, {}],
  ];
  it.each(convolutions)('convolves, %s', async (_, tile, more) => {
    const here = await opened;
    if (!here) throw new Error('no device');
    const conv = convOf(tile, more);
    expect(convFault(tile, conv)).toBeUndefined();
    const kernel = emulated(conv2dMatrix(tile, lanes, conv), tile, lanes);
    expectClose(await checkMatrixConv(here.device, kernel, tile, conv, 20_000));
  });
});

describe('gemm in tiles of registers', () => {
  const base: ThreadTile = {
    rows: 32,
    columns: 64,
    depth: 8,
    threadRows: 4,
    threadColumns: 8,
    buffers: 2,
    stored: 'f32',
    staged: 'f32',
    products: 'f32',
    load: 4,
    unrolled: true,
  };
  const parts: readonly Partial<ThreadTile>[] = [
    {},
    { buffers: 1, unrolled: false },
    { stored: 'f16', load: 8 },
    { stored: 'f16', staged: 'f16' },
    { stored: 'f16', staged: 'f16', products: 'f16', load: 8 },
  ];
  it.for(parts.map((part) => [nameOf(part), part] as const))('multiplies, %s', async ([, part], { skip }) => {
    const here = await opened;
    if (!here) throw new Error('no device');
    const tile = { ...base, ...part };
    if (tile.staged === 'f16' && !here.device.capabilities.f16)
      return skip('this device has no f16 arithmetic');
    const spec = { m: 64, n: 128, k: 40 };
    expectClose(await checkThreadGemm(here.device, gemmThreadTile(tile, spec), tile, spec, ALL));
  });
});

it('gives the reason if a tile or a shape does not fit', () => {
  const device = { lanes: 32, bytes: 49152, invocations: 1024 };
  expect(tileFault(BIG, device, { out: 'f32' })).toBeUndefined();
  expect(tileFault({ ...BIG, depth: 24 }, device, { out: 'f32' })).toContain('depth');
  expect(tileFault({ ...BIG, rows: 512, columns: 512 }, device, { out: 'f32' })).toContain('bytes');
  expect(() => gemmMatrix(BIG, 32, { ...specOf(BIG), m: 65 })).toThrow(ShapeError);
  expect(() => conv2dMatrix(BIG, 32, convOf(BIG, { x: [33, 2, 6, 16] }))).toThrow(ShapeError);
});
