import { ShapeError } from '../../src/errors.ts';
import { attention } from '../../src/kernels/attention/attention.ts';
import { conv2d } from '../../src/kernels/conv2d/conv2d.ts';
import { MATRIX_CONV } from '../../src/kernels/conv2d/conv2d-matrix.ts';
import { geometryOf } from '../../src/kernels/conv2d/conv2d-shape.ts';
import { weightGradient } from '../../src/kernels/conv2d/weight-gradient.ts';
import type { Capabilities, Device } from '../../src/kernels/device/device.ts';
import { withoutMatrix } from '../../src/kernels/device/families.ts';
import { forPrecision } from '../../src/kernels/device/for-precision.ts';
import { type MatrixUnit, matrixUnits } from '../../src/kernels/device/matrix-units.ts';
import type { Routine } from '../../src/kernels/device/routine.ts';
import { gemm } from '../../src/kernels/gemm/gemm.ts';
import { MATRIX_GEMM } from '../../src/kernels/gemm/gemm-matrix.ts';
import { linear } from '../../src/kernels/gemm/linear.ts';
import { type MatrixTile, tileFault } from '../../src/kernels/gemm/matrix-tile.ts';
import { matrixConvTiles, matrixGemmTile, matrixGemmTiles } from '../../src/kernels/gemm/matrix-tiles.ts';
import { referenceAttention } from '../reference/attention.ts';
import { referenceConv2d } from '../reference/conv2d.ts';
import { referenceLinear } from '../reference/linear.ts';
import { cases as attentions } from './cases/attention.ts';
import { cases as convolutions } from './cases/conv2d.ts';
import { cases as layers } from './cases/linear.ts';
import { F16_EPS, maxDifference, testDevice } from './harness.ts';
import { emulated } from './matrix-emulation.ts';
import { attentionInputs, runAttention } from './run-attention.ts';
import { conv2dInputs, runConv2d } from './run-conv2d.ts';
import { linearInputs, runLinear } from './run-linear.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';

const UNITS: readonly (readonly [string, MatrixUnit, lanes: number])[] = [
  ['16x16x16 (NVIDIA, AMD)', { M: 16, N: 16, K: 16 }, 32],
  ['16x8x16 (NVIDIA)', { M: 16, N: 8, K: 16 }, 32],
  ['8x16x16 (Intel)', { M: 8, N: 16, K: 16 }, 16],
];

/** Returns the capabilities of a device with matrix units, as far as they choose kernels. */
const withUnits = (
  capabilities: Capabilities,
  matrix: readonly MatrixUnit[],
  lanes: number,
): Capabilities => ({
  ...capabilities,
  family: 'matrix',
  matrix,
  subgroupSize: lanes,
  subgroupMaxSize: lanes,
});

const inEmulation = (routine: Routine, unit: MatrixUnit, lanes: number): Routine => ({
  ...routine,
  steps: routine.steps.map(({ kernel, operands }) => ({
    kernel: kernel.name.includes('.matrix.') ? emulated(kernel, unit, lanes) : kernel,
    operands,
  })),
});

/** Every case whose index is a multiple of `step`: they differ in shapes and in what is fused. */
const some = <T>(cases: readonly T[], step: number): readonly T[] => cases.filter((_, i) => i % step === 0);

const device = testDevice().catch(() => undefined);
afterAll(async () => (await device)?.close());

const expectClose = (actual: ArrayLike<number>, expected: ArrayLike<number>, bound: number): void => {
  const { difference, index } = maxDifference(actual, expected);
  expect(difference, `at ${index}`).toBeLessThan(bound);
};

type Skip = { readonly skip: (reason?: string) => never };

/** Returns the test device if it can run emulated units, else skips the test. */
async function emulator({ skip }: Skip): Promise<Device> {
  const here = await device;
  return here?.capabilities.f16 ? here : skip('emulated matrix units need f16 in workgroup memory');
}

/**
 * Skips a test of emulated attention where it takes a minute to compile, as on Mesa 25.0.7. The newer Mesa of
 * test/mesa26.sh, which has matrix units of its own, takes seconds.
 */
function needFastCompiler({ capabilities: { matrix = [] } }: Device, { skip }: Skip): void {
  if (matrix.length === 0) skip('this driver compiles emulated attention for minutes; set TEST_MESA26=1');
}

describe.each(UNITS)('emulated matrix units of %s', (_, unit, lanes) => {
  it.for(some(layers, 6))('multiply, $name', async ({ options }, context) => {
    const here = await emulator(context);
    const inputs = linearInputs(options);
    const routine = linear(withUnits(here.capabilities, [unit], lanes), options);
    const y = await runLinear(here, options, inputs, { routine: inEmulation(routine, unit, lanes) });
    expectClose(y, referenceLinear(options, inputs), 2 * F16_EPS * Math.sqrt(options.x[0]));
  });

  it.for(some(convolutions, 11))('convolve, $name', async ({ options }, context) => {
    const here = await emulator(context);
    const inputs = conv2dInputs(options);
    const routine = conv2d(withUnits(here.capabilities, [unit], lanes), options);
    const y = await runConv2d(here, options, inputs, { routine: inEmulation(routine, unit, lanes) });
    const terms = options.x[0] * options.kernel[0] * options.kernel[1];
    expectClose(y, referenceConv2d(options, inputs), 2 * F16_EPS * Math.sqrt(terms));
  });

  it.for(some(attentions, 4))('attend, $name', async ({ options }, context) => {
    const here = await emulator(context);
    needFastCompiler(here, context);
    const inputs = attentionInputs(options);
    const routine = attention(withUnits(here.capabilities, [unit], lanes), options);
    const y = await runAttention(here, options, inputs, { routine: inEmulation(routine, unit, lanes) });
    expectClose(y, referenceAttention(options, inputs), 4 * F16_EPS);
  });
});

const TILE: MatrixTile = {
  unit: { M: 16, N: 16, K: 16 },
  rows: 64,
  columns: 64,
  depth: 32,
  subgroupRows: 2,
  subgroupColumns: 2,
  load: 8,
  pipeline: 'registers',
  pad: 8,
};

/** Returns the units of a device that `tile` uses: its own, or those of the emulation. */
function unitOf({ matrix = [] }: Capabilities, tile: MatrixTile): { unit: MatrixUnit; real: boolean } {
  const [unit] = matrix;
  return unit ? { unit, real: true } : { unit: tile.unit, real: false };
}

describe('tiles on matrix units, real if the device has some, else emulated', () => {
  const parts: readonly Partial<MatrixTile>[] = [
    { depth: 16 },
    { pipeline: 'double', load: 4, depth: 16, pad: 0 },
    { rows: 80, columns: 32, subgroupRows: 5, subgroupColumns: 1, pipeline: 'none' },
  ];
  const named = parts.map((part) => [JSON.stringify(part).replaceAll('"', '') || 'as it is', part] as const);

  it.for(named)('multiply, %s', async ([, part], context) => {
    const here = await emulator(context);
    const { unit, real } = unitOf(here.capabilities, TILE);
    const lanes = real ? here.capabilities.subgroupMaxSize! : 32;
    const tile = { ...TILE, ...part, unit };
    const capabilities = withUnits(here.capabilities, [unit], lanes);
    const options = {
      x: [75, 3, 5, 9],
      outChannels: 101,
      bias: true,
      residual: true,
      weights: 'f16',
    } as const;
    const inputs = linearInputs(options);
    const routine = linear(capabilities, options);
    const [step] = routine.steps;
    const spec = {
      m: 101,
      k: 75,
      columns: 135,
      a: { pitch: 104 },
      b: { pitch: 136 },
      c: { pitch: 136 },
      aType: 'f16',
      bias: true,
      residual: true,
    } as const;
    const kernel = MATRIX_GEMM.kernel(capabilities, spec, tile);
    const steps = [{ kernel, operands: step!.operands }];
    const tiled = { ...routine, steps };
    const y = await runLinear(here, options, inputs, {
      routine: real ? tiled : inEmulation(tiled, unit, lanes),
    });
    expectClose(y, referenceLinear(options, inputs), 2 * F16_EPS * Math.sqrt(75));
  });

  it.for(named)('convolve, %s', async ([, part], context) => {
    const here = await emulator(context);
    const { unit, real } = unitOf(here.capabilities, TILE);
    const lanes = real ? here.capabilities.subgroupMaxSize! : 32;
    const tile = { ...TILE, ...part, unit, depth: 16 };
    const capabilities = withUnits(here.capabilities, [unit], lanes);
    const options = {
      x: [20, 2, 9, 8],
      outChannels: 70,
      kernel: [3, 3],
      padding: [1, 1, 1, 1],
      bias: true,
      affine: 'silu',
      embedding: true,
      weights: 'f32',
    } as const;
    if (tileFault(tile, capabilities, 3) !== undefined) return context.skip('the tile needs more memory');
    const inputs = conv2dInputs(options);
    const routine = conv2d(capabilities, options);
    const kernel = MATRIX_CONV.kernel(capabilities, geometryOf(options), tile);
    const tiled = { ...routine, steps: [{ kernel, operands: routine.steps[0]!.operands }] };
    const y = await runConv2d(here, options, inputs, {
      routine: real ? tiled : inEmulation(tiled, unit, lanes),
    });
    expectClose(y, referenceConv2d(options, inputs), 2 * F16_EPS * Math.sqrt(180));
  });

  it('attend to keys whose scores rise from block to block, which raises the reference', async (context) => {
    const here = await emulator(context);
    needFastCompiler(here, context);
    const { unit, real } = unitOf(here.capabilities, TILE);
    const lanes = real ? here.capabilities.subgroupMaxSize! : 32;
    const options = { heads: 1, headDim: 24, n: 2, queries: 70, keys: 150, scale: 24 ** -0.5 } as const;
    const inputs = attentionInputs(options);
    // Later keys have larger scores with every query, so the largest score grows by hundreds of powers of two.
    const rising = (values: Float32Array, slope: number) =>
      values.map((value, i) => Math.abs(value) * (1 + slope * (i % options.keys)));
    const steep = { ...inputs, q: inputs.q.map(Math.abs), k: rising(inputs.k, 0.2) };
    const routine = attention(withUnits(here.capabilities, [unit], lanes), options);
    const y = await runAttention(here, options, steep, {
      routine: real ? routine : inEmulation(routine, unit, lanes),
    });
    // Scores reach 400, whose rounding errors are errors of the weights.
    expectClose(y, referenceAttention(options, steep), 0.3);
  });
});

describe('tiles as data', () => {
  const nvidia: Capabilities = withUnits(
    { workgroupBytes: 49152, maxInvocations: 1024, software: false } as Capabilities,
    [
      { M: 16, N: 16, K: 16 },
      { M: 16, N: 8, K: 16 },
      { M: 16, N: 8, K: 8 },
    ],
    32,
  );

  it('are those that were fastest on an H200', () => {
    const nameOf = (m: number, columns: number) => {
      const {
        unit,
        rows,
        columns: wide,
        subgroupRows,
        subgroupColumns,
      } = matrixGemmTile(nvidia, { rows: m, columns });
      return `${unit.M}x${unit.N} ${rows}x${wide} ${subgroupRows}x${subgroupColumns}`;
    };
    expect(nameOf(4096, 4096)).toBe('16x8 128x256 4x4');
    expect(nameOf(1280, 1024)).toBe('16x16 160x64 5x1');
    expect(nameOf(320, 65536)).toBe('16x16 160x64 5x1');
    const conv = MATRIX_CONV.rule(
      nvidia,
      geometryOf({
        x: [320, 16, 64, 64],
        outChannels: 320,
        kernel: [3, 3],
        padding: [1, 1, 1, 1],
        bias: true,
        weights: 'f16',
      }),
    );
    expect(MATRIX_CONV.nameOf(conv)).toBe('16x16x16.160x128x16.5x2.registers.load8.pad8');
  });

  it('are all possible, sum in one order, and have names of their own', () => {
    const size = { rows: 640, columns: 4096 };
    for (const tiles of [matrixGemmTiles(nvidia, size), matrixConvTiles(nvidia, size, 3)]) {
      expect(tiles.length).toBeGreaterThan(10);
      expect(tiles.every(({ unit }) => unit.K === 16)).toBe(true);
    }
    expect(matrixGemmTiles(nvidia, size).every((tile) => tileFault(tile, nvidia) === undefined)).toBe(true);
    expect(matrixConvTiles(nvidia, size, 3).every((tile) => tileFault(tile, nvidia, 3) === undefined)).toBe(
      true,
    );
    expect(matrixConvTiles(nvidia, size, 3).every(({ depth }) => depth === 16)).toBe(true);
  });

  it('are refused with a reason', () => {
    expect(tileFault(TILE, nvidia)).toBeUndefined();
    expect(tileFault({ ...TILE, depth: 24 }, nvidia)).toContain('depth');
    expect(tileFault({ ...TILE, rows: 512, columns: 512 }, nvidia)).toContain('bytes');
    expect(tileFault({ ...TILE, rows: 40 }, nvidia)).toContain('rows');
    expect(
      tileFault({ ...TILE, subgroupRows: 4, subgroupColumns: 16, rows: 64, columns: 256 }, nvidia),
    ).toContain('invocations');
  });

  it('do not hide an invalid pitch', () => {
    const spec = { m: 8, k: 8, columns: 8, a: { pitch: 8 }, b: { pitch: 10 }, c: { pitch: 8 } };
    expect(() => gemm(nvidia, spec)).toThrow(ShapeError);
  });
});

describe('the matrix family', () => {
  const units = [{ M: 16, N: 16, K: 16 }];
  const gpu = { family: 'tile', subgroupSize: 32, matrix: units } as Partial<Capabilities> as Capabilities;

  it('serves plans in f16 on GPUs with units', () => {
    expect(forPrecision(gpu, 'f16').family).toBe('matrix');
    expect(forPrecision(gpu, 'f32').family).toBe('tile');
    expect(forPrecision({ ...gpu, matrix: [] }, 'f16').family).toBe('tile');
    expect(forPrecision({ ...gpu, family: 'subgroup' }, 'f16').family).toBe('subgroup');
    expect(withoutMatrix(forPrecision(gpu, 'f16')).family).toBe('tile');
  });

  it('uses the units that multiply f16 and sum in f32', () => {
    const config = (M: number, componentType: string, resultComponentType: string) => ({
      M,
      N: 16,
      K: 16,
      componentType,
      resultComponentType,
    });
    const info = {
      subgroupMatrixConfigs: [config(16, 'f16', 'f16'), config(16, 'f16', 'f32'), config(8, 'i8', 'i32')],
    } as unknown as GPUAdapterInfo;
    expect(matrixUnits(info)).toEqual(units);
    expect(matrixUnits({} as GPUAdapterInfo)).toEqual([]);
  });

  it('multiplies vectors in f32, and gradients too', () => {
    const here = { ...gpu, family: 'matrix', maxBindingBytes: 2 ** 27 } as Capabilities;
    const name = (routine: Routine) => routine.steps.map(({ kernel }) => kernel.name).join();
    const vector = linear(here, { x: [64, 4, 1, 1], outChannels: 64, bias: true, weights: 'f16' });
    expect(name(vector)).toContain('gemm.tile');
    const gradient = weightGradient(here, {
      x: [8, 1, 6, 6],
      outChannels: 8,
      kernel: [3, 3],
      padding: [1, 1, 1, 1],
    });
    expect(name(gradient)).not.toContain('matrix');
  });
});
