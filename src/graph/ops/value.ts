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

/** Returns `length` values of a constant, from element `from` on. */
export function rangeOf({ name, values, read }: Constant, from: number, length: number): Constant {
  return {
    name: `${name}[${from}:${from + length}]`,
    length,
    values: async () => (await values()).slice(from, from + length),
    ...(read ? { read: (at, into) => read(from + at, into) } : {}),
  };
}

/** Rows and columns of a matrix: the first one, and the number of them. */
interface Block {
  readonly rows: readonly [first: number, count: number];
  readonly columns: readonly [first: number, count: number];
}

/** Returns a block of a constant that is a matrix of rows of `width` values. */
export function blockOf({ name, values, read }: Constant, width: number, { rows, columns }: Block): Constant {
  const [firstRow, rowCount] = rows;
  const [first, count] = columns;
  /** Calls `copy` with the part of each row that elements `from` to `from + length` of the block are in. */
  const eachPart = async (
    from: number,
    length: number,
    copy: (source: number, target: number, length: number) => Promise<void>,
  ) => {
    for (let at = from; at < from + length; ) {
      const inside = at % count;
      const some = Math.min(count - inside, from + length - at);
      await copy((firstRow + Math.floor(at / count)) * width + first + inside, at - from, some);
      at += some;
    }
  };
  return {
    name: `${name}[${firstRow}:${firstRow + rowCount}, ${first}:${first + count} of ${width}]`,
    length: rowCount * count,
    async values() {
      const all = await values();
      const block = new Float32Array(rowCount * count);
      await eachPart(0, block.length, async (source, target, length) => {
        block.set(all.subarray(source, source + length), target);
      });
      return block;
    },
    ...(read && {
      read: (from, into) =>
        eachPart(from, into.length, (source, target, length) =>
          read(source, into.subarray(target, target + length)),
        ),
    }),
  };
}

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
