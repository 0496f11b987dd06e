// Runs a kernel once on random data and compares it with a reference in f64, element by element or on a sample.

import type { Geometry } from '../src/kernels/conv2d/conv2d-shape.ts';
import { packRows } from '../src/kernels/conv2d/conv2d-weights.ts';
import type { Device } from '../src/kernels/device/device.ts';
import { f16ToF32, f32ToF16 } from '../src/kernels/device/half.ts';
import type { Kernel } from '../src/kernels/device/kernel.ts';
import type { WeightDtype } from '../src/kernels/device/routine.ts';
import { createStorage, idle, prepare, readBack, submit } from '../src/kernels/device/runtime.ts';
import { columns, pitch, storageElements } from '../src/kernels/device/tensor.ts';
import type { GemmSpec } from '../src/kernels/gemm/gemm-spec.ts';
import type { ThreadGemm, ThreadTile } from './gemm-thread-tile.ts';
import { randomUniform } from './random.ts';

/** Random numbers that f16 represents exactly, and their bits. */
export interface Halves {
  readonly values: Float32Array<ArrayBuffer>;
  readonly bits: Uint16Array<ArrayBuffer>;
}

/** Returns random numbers between -0.5 and 0.5, rounded to f16. */
export function randomHalves(count: number, seed: number): Halves {
  const values = new Float32Array(count);
  const random = randomUniform(seed * 2654435761 + 12345);
  for (let i = 0; i < count; i++) values[i] = random() - 0.5;
  const bits = new Uint16Array(count);
  f32ToF16(values, bits);
  f16ToF32(bits, values);
  return { values, bits };
}

/** Returns the numbers as they are stored in a type. */
export const stored = (
  { values, bits }: Halves,
  type: WeightDtype,
): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> => (type === 'f16' ? bits : values);

/**
 * Runs a kernel once. Binds `inputs` in order, then the result of `outBytes`, which is filled with NaN before the
 * run.
 */
export async function runOnce(
  device: Device,
  kernel: Kernel,
  inputs: readonly ArrayBufferView<ArrayBuffer>[],
  outBytes: number,
): Promise<ArrayBuffer> {
  const made = new Map<ArrayBufferView, GPUBuffer>();
  for (const input of inputs)
    if (!made.has(input)) made.set(input, createStorage(device, input.byteLength, input));
  const result = createStorage(device, outBytes, new Uint8Array(outBytes).fill(0xff));
  const ranges = [...inputs.map((input) => made.get(input)!), result].map((buffer) => ({
    buffer,
    offset: 0,
    size: buffer.size,
  }));
  try {
    const sequence = await prepare(device, [{ kernel, ranges }]);
    submit(device, (pass) => sequence.encode(pass));
    await idle(device);
    sequence.destroy();
    return await readBack(device, { buffer: result, offset: 0, size: outBytes });
  } finally {
    for (const buffer of [...made.values(), result]) buffer.destroy();
  }
}

/** Returns the numbers of a result of a type. */
export function numbersOf(bytes: ArrayBuffer, type: WeightDtype): Float32Array<ArrayBuffer> {
  if (type === 'f32') return new Float32Array(bytes);
  const bits = new Uint16Array(bytes);
  const values = new Float32Array(bits.length);
  f16ToF32(bits, values);
  return values;
}

/** The largest error relative to the root mean square of the reference, and the largest error that is allowed. */
export interface Check {
  readonly error: number;
  readonly bound: number;
}

/** Collects the largest error; NaN counts as infinite. */
class Errors {
  #largest = 0;
  #squares = 0;
  #count = 0;

  add(actual: number, expected: number): void {
    const error = Math.abs(actual - expected);
    if (!(error <= this.#largest)) this.#largest = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
    this.#squares += expected * expected;
    this.#count++;
  }

  check(bound: number): Check {
    return { error: this.#largest / Math.sqrt(this.#squares / this.#count), bound };
  }
}

/** Returns the stride that compares about `sample` of `count` elements. A prime reaches every row and every column. */
const strideOf = (count: number, sample: number): number => {
  const primes = [1, 3, 7, 13, 31, 61, 127, 251, 509, 1021];
  return primes.find((prime) => count / prime <= sample) ?? 1021;
};

/**
 * The allowed error of sums of k products of f16: summed in f32, rounded to f16 at the end, or with partial sums in
 * f16.
 */
const BOUNDS = {
  f32: (k: number) => 1e-5 * Math.sqrt(k),
  f16: () => 4e-3,
  'partial sums': () => 2e-2,
} as const;

const A_SEED = 1;
const B_SEED = 2;
const BIAS_SEED = 3;

/** How the activations of a candidate are stored; weights are f16. */
export interface StoredOperands {
  readonly x: WeightDtype;
  readonly out: WeightDtype;
}

/** Checks a GEMM on matrix units, with factor a in f16, by comparing about `sample` elements. */
export async function checkMatrixGemm(
  device: Device,
  kernel: Kernel,
  { m, k, columns: n, a: { pitch: aPitch }, b: { pitch: bPitch }, c: { pitch: cPitch }, bias }: GemmSpec,
  { x, out }: StoredOperands,
  sample = 4000,
): Promise<Check> {
  const a = randomHalves(k * aPitch, A_SEED);
  const b = randomHalves(k * bPitch, B_SEED);
  const biases = randomHalves(aPitch, BIAS_SEED).values;
  const bytes = await runOnce(
    device,
    kernel,
    [a.bits, stored(b, x), ...(bias ? [biases] : [])],
    m * cPitch * (out === 'f16' ? 2 : 4),
  );
  const c = numbersOf(bytes, out);
  const errors = new Errors();
  const stride = strideOf(m * n, sample);
  for (let at = 0; at < m * n; at += stride) {
    const [row, column] = [Math.floor(at / n), at % n];
    let sum = bias ? biases[row]! : 0;
    for (let i = 0; i < k; i++) sum += a.values[i * aPitch + row]! * b.values[i * bPitch + column]!;
    errors.add(c[row * cPitch + column]!, sum);
  }
  return errors.check(BOUNDS[out](k));
}

/** Checks a GEMM in the registers of invocations. */
export async function checkThreadGemm(
  device: Device,
  kernel: Kernel,
  tile: ThreadTile,
  { m, n, k }: ThreadGemm,
  sample = 4000,
): Promise<Check> {
  const [a, b] = [randomHalves(k * m, A_SEED), randomHalves(k * n, B_SEED)];
  const bytes = await runOnce(device, kernel, [stored(a, tile.stored), stored(b, tile.stored)], m * n * 4);
  const c = new Float32Array(bytes);
  const errors = new Errors();
  const stride = strideOf(m * n, sample);
  for (let at = 0; at < m * n; at += stride) {
    const [row, column] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let i = 0; i < k; i++) sum += a.values[i * m + row]! * b.values[i * n + column]!;
    errors.add(c[at]!, sum);
  }
  return errors.check(BOUNDS[tile.products === 'f16' ? 'partial sums' : 'f32'](k));
}

/** Checks a convolution on matrix units whose weights are f16 and whose padding is 1. */
export async function checkMatrixConv(
  device: Device,
  kernel: Kernel,
  geometry: Geometry,
  types: StoredOperands,
  sample = 4000,
): Promise<Check> {
  const { x, y, kernel: window, stride, fused } = geometry;
  const [kh, kw] = window;
  const weight = randomHalves(y[0] * x[0] * kh * kw, A_SEED);
  const packing = packRows(geometry);
  const packed = new ArrayBuffer(packing.bytes);
  packing.place(weight.bits, 0, packed);
  const activation = randomHalves(storageElements(x), B_SEED);
  const biases = randomHalves(y[0], BIAS_SEED).values;
  const input = stored(activation, types.x);
  const operands: Readonly<Record<string, ArrayBufferView<ArrayBuffer>>> = {
    a: new Uint16Array(packed),
    x: input,
    pixel: input,
    bias: biases,
  };
  const bytes = await runOnce(
    device,
    kernel,
    kernel.bindings.flatMap(({ name }) => operands[name] ?? []),
    storageElements(y) * (types.out === 'f16' ? 2 : 4),
  );
  const c = numbersOf(bytes, types.out);
  const errors = new Errors();
  const [count, step] = [y[0] * columns(y), strideOf(y[0] * columns(y), sample)];
  for (let at = 0; at < count; at += step) {
    const [o, p] = [Math.floor(at / columns(y)), at % columns(y)];
    const [n, row, column] = [Math.floor(p / (y[2] * y[3])), Math.floor(p / y[3]) % y[2], p % y[3]];
    let sum = fused.bias ? biases[o]! : 0;
    for (let i = 0; i < kh; i++)
      for (let j = 0; j < kw; j++) {
        const [r, q] = [row * stride + i - 1, column * stride + j - 1];
        if (r < 0 || q < 0 || r >= x[2] || q >= x[3]) continue;
        for (let ch = 0; ch < x[0]; ch++)
          sum +=
            weight.values[((o * x[0] + ch) * kh + i) * kw + j]! *
            activation.values[ch * pitch(x) + (n * x[2] + r) * x[3] + q]!;
      }
    errors.add(c[o * pitch(y) + p]!, sum);
  }
  return errors.check(BOUNDS[types.out](kh * kw * x[0]));
}
