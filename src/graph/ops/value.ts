// Values and constants: what the ops of a graph read and write.

import type { Elements } from '../../kernels/device/routine.ts';
import type { Shape } from '../../kernels/device/tensor.ts';

/** The output of a node, or an input of the graph. Its elements are f32, except for indices and noise keys (u32). */
export interface Value {
  readonly id: number;
  readonly shape: Shape;
}

/**
 * A weight, identified by its name. Constants with equal names must hold equal values, because a device keeps one copy
 * per name.
 */
export interface Constant {
  readonly name: string;
  readonly length: number;
  /** Returns the values in their natural order (PyTorch's), as f32. */
  readonly values: () => Promise<Float32Array>;
  /**
   * Fills `into` with the values from element `from` on, as floats or as the bits of halves. Large constants, such as
   * the weights of a file, have this function, so that they can be read in parts; the others are read by `values`.
   * @throws ModelError if a value cannot be represented as f16.
   */
  readonly read?: (from: number, into: Elements) => Promise<void>;
}

/** Returns a constant whose values are in memory. */
export const table = (name: string, values: Float32Array): Constant => ({
  name,
  length: values.length,
  values: async () => values,
});

/**
 * A constant computed from the values of another one. `how` describes the computation and becomes part of the name,
 * because equal names must mean equal values.
 */
export const derived = (
  of: Constant,
  how: string,
  make: (values: Float32Array) => Float32Array,
  length = of.length,
): Constant => ({ name: `${of.name} ${how}`, length, values: async () => make(await of.values()) });

/** A constant that holds the values of several constants, one after the other. Its name joins their names with `+`. */
export function concatenated(parts: readonly Constant[]): Constant {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const read = async (from: number, into: Elements) => {
    let begin = 0;
    for (const part of parts) {
      const first = Math.max(from, begin);
      const end = Math.min(from + into.length, begin + part.length);
      if (first < end) await part.read!(first - begin, into.subarray(first - from, end - from));
      begin += part.length;
    }
  };
  const values = async () => {
    const all = new Float32Array(length);
    let begin = 0;
    for (const part of parts) {
      all.set(await part.values(), begin);
      begin += part.length;
    }
    return all;
  };
  const name = parts.map((part) => part.name).join('+');
  return { name, length, values, ...(parts.every((part) => part.read) ? { read } : {}) };
}
