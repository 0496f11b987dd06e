// The shapes of the search for tiles, and its candidates: a kernel for a shape, its operands, and its check.

import { MATRIX_CONV } from '../src/kernels/conv2d/conv2d-matrix.ts';
import { type Geometry, geometryOf } from '../src/kernels/conv2d/conv2d-shape.ts';
import { paddedChannels } from '../src/kernels/conv2d/conv2d-weights.ts';
import type { Kernel } from '../src/kernels/device/kernel.ts';
import type { WeightDtype } from '../src/kernels/device/routine.ts';
import { storedAs } from '../src/kernels/device/storage.ts';
import { columns, type Shape, storageElements } from '../src/kernels/device/tensor.ts';
import { gemm } from '../src/kernels/gemm/gemm.ts';
import { gemmMatrix } from '../src/kernels/gemm/gemm-matrix.ts';
import type { GemmSpec } from '../src/kernels/gemm/gemm-spec.ts';
import { type MatrixTile, tileFault, tileName } from '../src/kernels/gemm/matrix-tile.ts';
import { gemmThreadTile, type ThreadTile, threadTileFault, threadTileName } from './gemm-thread-tile.ts';
import { type Check, checkMatrixConv, checkMatrixGemm, checkThreadGemm } from './matrix-check.ts';
import type { MatrixDevice } from './matrix-device.ts';

/** What follows the sums: the type of the result and whether a bias in f32 is added. */
export interface MatrixOut {
  readonly out: WeightDtype;
  readonly bias?: boolean;
}

/** Taps of a row of the convolutions that are searched. */
const TAPS = 3;

export type Kind = 'matrix' | 'thread' | 'present';

export interface GemmShape {
  readonly name: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

export interface ConvShape {
  readonly name: string;
  readonly x: Shape;
  readonly outChannels: number;
  readonly stride: 1 | 2;
}

const gemmShape = (m: number, n: number, k: number): GemmShape => ({ name: `gemm ${m}x${n}x${k}`, m, n, k });
const convOf = (
  channels: number,
  outChannels: number,
  side: number,
  n: number,
  stride: 1 | 2 = 1,
): ConvShape => ({
  name: `conv ${channels}->${outChannels} ${side}x${side} n${n}${stride === 2 ? ' stride 2' : ''}`,
  x: [channels, n, side, side],
  outChannels,
  stride,
});

/** The shapes of a search. The largest of each kind is searched first, and its best tiles are tried on the others. */
interface Shapes {
  readonly largest: GemmShape;
  readonly gemms: readonly GemmShape[];
  readonly largestConv: ConvShape;
  readonly convs: readonly ConvShape[];
}

export const FULL: Shapes = {
  largest: gemmShape(4096, 4096, 4096),
  gemms: [
    gemmShape(320, 65536, 320),
    gemmShape(1280, 4096, 1280),
    gemmShape(1024, 1024, 1024),
    gemmShape(640, 16384, 640),
    gemmShape(1280, 1024, 1280),
    gemmShape(320, 4096, 320),
  ],
  largestConv: convOf(320, 320, 64, 16),
  convs: [
    convOf(640, 640, 32, 16),
    convOf(1280, 1280, 16, 16),
    convOf(128, 128, 32, 64),
    convOf(128, 128, 32, 8),
    convOf(320, 320, 64, 16, 2),
  ],
};

export const TINY: Shapes = {
  largest: gemmShape(256, 256, 128),
  gemms: [gemmShape(80, 192, 64)],
  largestConv: convOf(32, 32, 16, 2),
  convs: [convOf(64, 48, 16, 1, 2)],
};

/** A kernel that is tried on a shape. */
export interface Candidate {
  readonly kind: Kind;
  readonly name: string;
  readonly tile?: MatrixTile | ThreadTile;
  readonly out: MatrixOut;
  readonly xType?: WeightDtype;
  /** The kernel on the real shape, and its operands in the order of its bindings. */
  readonly kernel: Kernel;
  readonly operands: readonly Operand[];
  readonly check?: (opened: MatrixDevice) => Promise<Check>;
}

export interface Operand {
  readonly name: string;
  readonly bytes: number;
  readonly type: WeightDtype;
}

export const F32: MatrixOut = { out: 'f32' };
export const F16_BIAS: MatrixOut = { out: 'f16', bias: true };
export const F32_BIAS: MatrixOut = { out: 'f32', bias: true };

const roundUp = (value: number, part: number): number => Math.ceil(value / part) * part;
const sizeOf = (elements: number, type: WeightDtype): number => elements * (type === 'f16' ? 2 : 4);
const operand = (name: string, elements: number, type: WeightDtype): Operand => ({
  name: `${name} ${type}`,
  bytes: sizeOf(elements, type),
  type,
});
const biasOperand = (out: MatrixOut, rows: number): Operand[] =>
  out.bias ? [operand('bias', rows, 'f32')] : [];
const tag = (out: MatrixOut): string =>
  out.out === 'f16' || out.bias ? ` ${out.out}${out.bias ? '+bias' : ''}` : '';

const gemmSpec = (m: number, columns: number, k: number, { bias = false }: MatrixOut): GemmSpec => ({
  m,
  k,
  columns,
  a: { pitch: roundUp(m, 8) },
  b: { pitch: roundUp(columns, 8) },
  c: { pitch: roundUp(columns, 8) },
  aType: 'f16',
  bias,
});

const geometryFor = ({ x, outChannels, stride }: ConvShape, { bias = false }: MatrixOut): Geometry =>
  geometryOf({ x, outChannels, kernel: [3, TAPS], padding: [1, 1, 1, 1], stride, bias, weights: 'f16' });

/** Returns a kernel whose bindings of activations are stored in f16 where the candidate says so. */
const storedIn = (
  kernel: Kernel,
  inputs: readonly string[],
  xType: WeightDtype,
  result: string,
  out: WeightDtype,
) =>
  storedAs(
    kernel,
    kernel.bindings
      .map(({ name }) => name)
      .filter((name) => (xType === 'f16' && inputs.includes(name)) || (out === 'f16' && name === result)),
  );

/** Returns a candidate, or the reason why it cannot be created. */
export function attempted(make: () => Candidate | string): Candidate | string {
  try {
    return make();
  } catch (error) {
    return reasonOf(error);
  }
}

/** Returns a GEMM on matrix units for a shape, or the reason why there is none. */
export function matrixGemmCandidate(
  opened: MatrixDevice,
  tile: MatrixTile,
  shape: GemmShape,
  out = F32,
  bType: WeightDtype = 'f16',
): Candidate | string {
  const { capabilities } = opened.device;
  const fault = tileFault(tile, capabilities);
  if (fault) return fault;
  const make = (spec: GemmSpec) => storedIn(gemmMatrix(capabilities, spec, tile), ['b'], bType, 'c', out.out);
  const spec = gemmSpec(shape.m, shape.n, shape.k, out);
  return {
    kind: 'matrix',
    name: `${tileName(tile)}${tag(out)}${bType === 'f32' ? ' x f32' : ''}`,
    tile,
    out,
    xType: bType,
    kernel: make(spec),
    operands: [
      operand('a', spec.k * spec.a.pitch, 'f16'),
      operand('b', spec.k * spec.b.pitch, bType),
      ...biasOperand(out, spec.a.pitch),
      operand('c', spec.m * spec.c.pitch, out.out),
    ],
    check: ({ device: on }) => {
      const small = gemmSpec(tile.rows * 2 - 3, tile.columns * 2 - 5, tile.depth * 3 - 1, out);
      return checkMatrixGemm(on, make(small), small, { x: bType, out: out.out }, 2000);
    },
  };
}

/** Returns a convolution on matrix units for a shape, or the reason why there is none. */
export function matrixConvCandidate(
  opened: MatrixDevice,
  tile: MatrixTile,
  shape: ConvShape,
  out = F32,
  xType: WeightDtype = 'f16',
): Candidate | string {
  const { capabilities } = opened.device;
  const fault = tileFault(tile, capabilities, TAPS);
  if (fault) return fault;
  const make = (geometry: Geometry) =>
    storedIn(MATRIX_CONV.kernel(capabilities, geometry, tile), ['x', 'pixel'], xType, 'y', out.out);
  const geometry = geometryFor(shape, out);
  const kernel = make(geometry);
  const operands: Readonly<Record<string, Operand>> = {
    a: operand('a', 9 * shape.x[0] * paddedChannels(shape.outChannels), 'f16'),
    x: operand('x', storageElements(shape.x), xType),
    pixel: operand('x', storageElements(shape.x), xType),
    bias: operand('bias', shape.outChannels, 'f32'),
    y: operand('c', storageElements(geometry.y), out.out),
  };
  return {
    kind: 'matrix',
    name: `${tileName(tile)}${tag(out)}${xType === 'f32' ? ' x f32' : ''}`,
    tile,
    out,
    xType,
    kernel,
    operands: kernel.bindings.map(({ name }) => operands[name]!),
    check: ({ device: on }) => {
      // Rows and columns that end inside a tile, and two strips of channels.
      const small = geometryFor(
        {
          ...shape,
          x: [2 * tile.depth - 1, 2, 6 * shape.stride, 16 * shape.stride],
          outChannels: tile.rows + 5,
        },
        out,
      );
      return checkMatrixConv(on, make(small), small, { x: xType, out: out.out }, 2000);
    },
  };
}

/** Returns a GEMM in registers for a shape, or the reason why there is none. */
export function threadCandidate(
  opened: MatrixDevice,
  tile: ThreadTile,
  shape: GemmShape,
): Candidate | string {
  const { workgroupBytes: bytes, maxInvocations: invocations, f16 } = opened.device.capabilities;
  const fault = threadTileFault(tile, { bytes, invocations, f16 });
  if (fault) return fault;
  const [m, n, k] = [
    roundUp(shape.m, tile.rows),
    roundUp(shape.n, tile.columns),
    roundUp(shape.k, tile.depth),
  ];
  return {
    kind: 'thread',
    name: threadTileName(tile),
    tile,
    out: F32,
    kernel: gemmThreadTile(tile, { m, n, k }),
    operands: [
      operand('a', m * k, tile.stored),
      operand('b', n * k, tile.stored),
      operand('c', m * n, 'f32'),
    ],
    check: ({ device: on }) => {
      const small = { m: tile.rows * 2, n: tile.columns * 2, k: tile.depth * 3 };
      return checkThreadGemm(on, gemmThreadTile(tile, small), tile, small, 2000);
    },
  };
}

/** Returns the GEMM that the library uses on GPUs. */
export function presentCandidate(opened: MatrixDevice, shape: GemmShape, aType: WeightDtype): Candidate {
  const { m, n, k } = shape;
  const spec = { m, k, columns: n, a: { pitch: m }, b: { pitch: n }, c: { pitch: n }, aType };
  return {
    kind: 'present',
    name: `present gemm.tile, weights ${aType}`,
    out: F32,
    kernel: gemm({ ...opened.device.capabilities, family: 'tile' }, spec),
    operands: [operand('a', m * k, aType), operand('b', n * k, 'f32'), operand('c', m * n, 'f32')],
  };
}

export const reasonOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).slice(0, 400);

export const gemmFlops = ({ m, n, k }: GemmShape): number => 2 * m * n * k;
export const convFlops = (shape: ConvShape): number => {
  const { y } = geometryFor(shape, F32);
  return 2 * 9 * shape.x[0] * y[0] * columns(y);
};
