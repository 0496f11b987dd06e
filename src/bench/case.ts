// A benchmark case: one op at one size, with everything that is needed to run its routine on a device.

import { type OpAttributes, type OpName, ops } from '../graph/ops/table.ts';
import type { GpuBuffer } from '../host-types.ts';
import type { Capabilities, Device } from '../kernels/device/device.ts';
import { pack } from '../kernels/device/packing.ts';
import type { Routine, WeightDtype } from '../kernels/device/routine.ts';
import { createStorage, type Launch } from '../kernels/device/runtime.ts';
import { type Shape, storageElements } from '../kernels/device/tensor.ts';
import { sum } from '../numbers.ts';

export interface BenchCase {
  readonly op: OpName;
  /** What distinguishes the case from others of its op: sizes and options. */
  readonly name: string;
  readonly routine: (capabilities: Capabilities) => Routine;
  /** Activations by operand name, including the output `y`. */
  readonly activations: Readonly<Record<string, Shape>>;
  /** Lengths of constants by operand name, in their natural order. */
  readonly constants: Readonly<Record<string, number>>;
  /** The activations whose elements are indices (u32), each with the number that its elements stay below. */
  readonly indices: Readonly<Record<string, number>>;
  /**
   * Floating-point operations by the op's definition, in which a multiplication and an addition count as two. It is 0 for
   * ops without products, whose time is that of reading and writing memory.
   */
  readonly flops: number;
  /** The same work for PyTorch (bench/device.py), if PyTorch has the operation. */
  readonly torch?: Readonly<Record<string, unknown>>;
}

/** Ops that are limited by arithmetic. */
const PRODUCTS: ReadonlySet<OpName> = new Set<OpName>([
  'conv2d',
  'linear',
  'attention',
  'attentionGradient',
  'inputGradient',
  'weightGradient',
]);

/** The operands of a case, and what else `newCase` cannot derive from the op. */
interface CaseParts<Attributes> {
  readonly attributes: Attributes;
  readonly inputs: Readonly<Record<string, Shape>>;
  /** The names of the constants that the case has, of those that the op declares; default: all. */
  readonly constants?: readonly string[];
  /** Lengths of constants whose length the op does not declare. */
  readonly lengths?: Readonly<Record<string, number>>;
  readonly indices?: Readonly<Record<string, number>>;
  readonly weights?: WeightDtype | undefined;
  readonly compact?: boolean | undefined;
  readonly torch?: Readonly<Record<string, unknown>>;
}

/**
 * Returns the case of an op of the graph.
 * @throws ShapeError if the inputs do not fit together.
 */
export function newCase<Name extends OpName>(
  op: Name,
  name: string,
  parts: CaseParts<OpAttributes[Name]>,
): BenchCase {
  const { attributes, inputs, lengths = {}, indices = {}, weights = 'f32', compact = false, torch } = parts;
  const entry = ops[op];
  const y = entry.infer(inputs, attributes);
  const declared = entry.constants?.(inputs, attributes) ?? {};
  const chosen = parts.constants ?? Object.keys(declared);
  const constants = { ...Object.fromEntries(chosen.map((key) => [key, declared[key]!])), ...lengths };
  const has = (operand: string): boolean => operand in inputs || operand in constants;
  return {
    op,
    name,
    routine: (capabilities) =>
      entry.forward(
        capabilities,
        { inputs, output: y, has, stored: () => 'f32' },
        attributes,
        weights,
        compact,
      ),
    activations: { ...inputs, y },
    constants,
    indices,
    flops: PRODUCTS.has(op) ? entry.flop({ inputs, output: y }, attributes) : 0,
    ...(torch ? { torch } : {}),
  };
}

/** Returns the bytes that must be read or written at least once: every operand, all of them as 32-bit numbers. */
export const bytesOf = ({ activations, constants }: BenchCase): number =>
  4 * (sum(Object.values(activations).map(storageElements)) + sum(Object.values(constants)));

/** Returns indices below `limit` in a reproducible order that is neither sorted nor constant. */
const indexValues = (count: number, limit: number): Uint32Array<ArrayBuffer> =>
  Uint32Array.from({ length: count }, (_, i) => (i * 7919) % limit);

/** Returns values in [-1, 1) that are the same in every run (the LCG of Numerical Recipes). */
export function reproducibleValues(count: number): Float32Array<ArrayBuffer> {
  let state = 1;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** The launches of a case, with their buffers. */
export interface CaseLaunches {
  readonly launches: readonly Launch[];
  /** The buffers of the activations by operand name. */
  readonly buffers: ReadonlyMap<string, GpuBuffer>;
  /** Frees the buffers. */
  readonly destroy: () => void;
}

/**
 * Creates the launches of a case and their buffers; `values` returns the values of an operand that holds no indices.
 * @throws Error if a kernel binds an operand that the case does not list.
 */
export function launchesOf(
  device: Device,
  benchCase: BenchCase,
  values: (count: number) => Float32Array<ArrayBuffer> = reproducibleValues,
): CaseLaunches {
  const { op, name: caseName, activations, constants, indices } = benchCase;
  const routine = benchCase.routine(device.capabilities);
  const buffers = new Map<string, GpuBuffer>();
  const destroy = (): void => {
    for (const buffer of buffers.values()) buffer.destroy();
  };
  try {
    for (const [name, shape] of Object.entries(activations)) {
      const count = storageElements(shape);
      const limit = indices[name];
      const data = limit === undefined ? values(count) : indexValues(count, limit);
      buffers.set(name, createStorage(device, 4 * count, data, name));
    }
    for (const [name, length] of Object.entries(constants)) {
      const packing = routine.packing[name];
      const data = packing ? pack(packing, values(length)) : values(length);
      buffers.set(name, createStorage(device, data.byteLength, data, name));
    }
    for (const [name, bytes] of Object.entries(routine.scratch))
      buffers.set(name, createStorage(device, bytes, undefined, name));
    const launches = routine.steps.map(
      ({ kernel, operands }): Launch => ({
        kernel,
        ranges: operands.map((name) => {
          const buffer = buffers.get(name);
          if (!buffer)
            throw new Error(`${op} ${caseName}: expected an operand ${name} for ${kernel.name}, got none`);
          return { buffer, offset: 0, size: buffer.size };
        }),
      }),
    );
    return { launches, buffers, destroy };
  } catch (error) {
    destroy();
    throw error;
  }
}
