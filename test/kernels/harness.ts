// Runs a routine on the device as a plan would, with memory arranged to detect mistakes: outputs and scratch start as
// NaN, every buffer is followed by guard words that must keep their bits, and an uncaptured device error fails the
// test. Activations can be stored as f16, as in a plan of that precision.

import { type Device, type DeviceOptions, type Family, openDevice } from '../../src/kernels/device/device.ts';
import { f16ToF32, f32ToF16 } from '../../src/kernels/device/half.ts';
import { pack } from '../../src/kernels/device/packing.ts';
import type { Routine, Step, WeightDtype } from '../../src/kernels/device/routine.ts';
import {
  createStorage,
  idle,
  type Launch,
  prepare,
  readBack,
  submit,
} from '../../src/kernels/device/runtime.ts';
import { STORED_BYTES, type Stored, storedAs } from '../../src/kernels/device/storage.ts';
import {
  fromChannelMajor,
  type Shape,
  storageElements,
  toChannelMajor,
} from '../../src/kernels/device/tensor.ts';

const GUARD_WORDS = 64;
const GUARD = 0x7fc0beef; // a NaN with a recognisable pattern

const opened = new Map<string, Promise<Device>>();

/** Returns the process's device for a family; rejects if the adapter cannot run the family. */
export async function testDevice(options: DeviceOptions = {}): Promise<Device> {
  const key = options.family ?? 'auto';
  let device = opened.get(key);
  if (!device) {
    device = openDevice(options).then((made) => {
      made.gpu.addEventListener('uncapturederror', (event) => {
        throw new Error(`uncaptured device error: ${(event as GPUUncapturedErrorEvent).error.message}`);
      });
      return made;
    });
    opened.set(key, device);
  }
  return device;
}

/**
 * Closes the devices, so that `testDevice` opens new ones: after a lost device, or when no more are needed.
 */
export async function closeTestDevices(): Promise<void> {
  const devices = [...opened.values()];
  opened.clear();
  for (const device of devices) (await device.catch(() => undefined))?.close();
}

/** An activation in the usual [n, c, h, w] order (`shape` is channel-major, as everywhere). */
export interface Activation {
  readonly shape: Shape;
  readonly values: ArrayLike<number>;
}

export interface RunInputs {
  /** Activations by operand name, given in [n, c, h, w] order. */
  readonly activations?: Readonly<Record<string, Activation>>;
  /** Constant operands by name, in their natural order; packed as the routine requires. */
  readonly constants?: Readonly<Record<string, Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>>;
  /** Outputs by name and shape; poisoned with NaN first (or seeded, for accumulating ops). */
  readonly outputs: Readonly<Record<string, Shape>>;
  /** How activations and outputs are stored; default: f32. */
  readonly stored?: Stored | undefined;
}

/** Returns inputs by name with their values rounded to the type in which they are stored. */
export const rounded = <Inputs extends object>(inputs: Inputs, stored: Stored): Inputs =>
  stored === 'f32'
    ? inputs
    : (Object.fromEntries(
        Object.entries(inputs).map(([name, values]) => [name, throughHalf(values)]),
      ) as Inputs);

/**
 * Returns the largest error of storing results of these magnitudes: one unit in the last place, because WGSL lets a
 * device round up or down.
 */
export const storingError = (stored: Stored, results: ArrayLike<number>): number =>
  stored === 'f32' ? 0 : 2 ** -10 * Array.from(results).reduce((most, v) => Math.max(most, Math.abs(v)), 0);

function toHalf(values: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length);
  f32ToF16(Float32Array.from(values), out);
  return out;
}

function fromHalf(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(halves.length);
  f16ToF32(halves, out);
  return out;
}

const throughHalf = (values: ArrayLike<number>) => fromHalf(toHalf(values));

/** Returns a step whose kernel stores the operands `halves` as f16. */
function withHalves({ kernel, operands }: Step, halves: ReadonlySet<string>): Step {
  const names = kernel.bindings.filter((_, i) => halves.has(operands[i]!)).map(({ name }) => name);
  return { kernel: storedAs(kernel, names), operands };
}

/** How a test runs an op: by which routine, and how its operands are stored. */
export interface RunVariant {
  /** Default: the device's own. */
  readonly routine?: Routine;
  readonly stored?: Stored;
}

/** Runs the routine once and returns its outputs in [n, c, h, w] order. */
export async function runRoutine(
  device: Device,
  routine: Routine,
  { activations = {}, constants = {}, outputs, stored = 'f32' }: RunInputs,
): Promise<Record<string, Float32Array>> {
  const halves = new Set(stored === 'f16' ? [...Object.keys(activations), ...Object.keys(outputs)] : []);
  const buffers = new Map<string, { buffer: GPUBuffer; size: number; guardAt: number }>();
  const make = (name: string, size: number, data?: ArrayBufferView<ArrayBuffer>) => {
    const words = Math.ceil(size / 4);
    const all = new Uint32Array(words + GUARD_WORDS).fill(GUARD);
    if (data) new Uint8Array(all.buffer).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    const buffer = createStorage(device, all.byteLength, all, name);
    buffers.set(name, { buffer, size: words * 4, guardAt: words });
  };
  for (const [name, { shape, values }] of Object.entries(activations)) {
    const data = toChannelMajor(values, shape);
    const used = toChannelMajor(new Float32Array(values.length).fill(1), shape);
    for (let i = 0; i < data.length; i++) if (used[i] === 0) data[i] = Number.NaN; // results must not depend on padding
    make(name, STORED_BYTES[stored] * data.length, stored === 'f16' ? toHalf(data) : data);
  }
  for (const [name, values] of Object.entries(constants)) {
    const packing = routine.packing[name];
    const data = packing && values instanceof Float32Array ? pack(packing, values) : values;
    if (packing && data.byteLength !== packing.bytes)
      throw new Error(`${name}: expected ${packing.bytes} packed bytes, got ${data.byteLength}`);
    make(name, data.byteLength, data);
  }
  for (const [name, bytes] of Object.entries(routine.scratch)) make(name, bytes);
  for (const [name, shape] of Object.entries(outputs))
    if (!buffers.has(name)) make(name, STORED_BYTES[stored] * storageElements(shape));
  const steps = routine.steps.map((step) => withHalves(step, halves));
  const launches: Launch[] = steps.map(({ kernel, operands }) => ({
    kernel,
    ranges: operands.map((name) => {
      const entry = buffers.get(name);
      if (!entry) throw new Error(`${kernel.name} binds ${name}, which the test did not provide`);
      return { buffer: entry.buffer, offset: 0, size: Math.ceil(entry.size / 16) * 16 };
    }),
  }));
  const sequence = await prepare(device, launches);
  submit(device, (pass) => sequence.encode(pass));
  await idle(device);
  const results: Record<string, Float32Array> = {};
  for (const [name, { buffer, guardAt }] of buffers) {
    const words = new Uint32Array(
      await readBack(device, { buffer, offset: 0, size: (guardAt + GUARD_WORDS) * 4 }),
    );
    // The bound range is rounded up to 16 bytes, so kernels may write the first words of the guard.
    const first = Math.ceil(guardAt / 4) * 4;
    for (let i = first; i < guardAt + GUARD_WORDS; i++)
      if (words[i] !== GUARD) throw new Error(`${name}: word ${i - guardAt} after its end was written`);
    const shape = outputs[name];
    if (shape) {
      const { buffer: bytes } = words;
      const values = stored === 'f16' ? fromHalf(new Uint16Array(bytes)) : new Float32Array(bytes);
      results[name] = fromChannelMajor(values, shape);
    }
    buffer.destroy();
  }
  sequence.destroy();
  return results;
}

/** The distance from 1 to the next f32, and half the distance from 1 to the next f16. */
export const EPS = 2 ** -23;
export const F16_EPS = 2 ** -11;

/** Whether the factors of a product are rounded to f16: as weights in f16, or by matrix units. */
export const inHalves = (family: Family, weights: WeightDtype = 'f32'): boolean =>
  family === 'matrix' || weights === 'f16';

/** Returns reproducible values in [-1, 1) (mulberry32). */
export function randomValues(count: number, seed = 1): Float32Array<ArrayBuffer> {
  const out = new Float32Array(count);
  let s = seed >>> 0;
  for (let i = 0; i < count; i++) {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    out[i] = ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  }
  return out;
}

/** Returns the largest |a - b| and its index; NaN counts as infinite. */
export function maxDifference(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): { difference: number; index: number } {
  if (actual.length !== expected.length)
    throw new Error(`expected ${expected.length} values, got ${actual.length}`);
  let difference = 0;
  let index = -1;
  for (let i = 0; i < actual.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!);
    if (!(d <= difference)) {
      difference = Number.isNaN(d) ? Number.POSITIVE_INFINITY : d;
      index = i;
    }
  }
  return { difference, index };
}
