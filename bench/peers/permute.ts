// Changes the order of an array's axes. Libraries keep images, weights and heads in different orders.

/** Returns an array of `shape` in another order: axis i of the result is axis `axes[i]` of the given array. */
export function permuted(
  values: ArrayLike<number>,
  shape: readonly number[],
  axes: readonly number[],
): Float32Array<ArrayBuffer> {
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const sizes = axes.map((axis) => shape[axis]!);
  const steps = axes.map((axis) => strides[axis]!);
  const out = new Float32Array(values.length);
  let to = 0;
  const copy = (axis: number, from: number): void => {
    if (axis === sizes.length) out[to++] = values[from]!;
    else for (let i = 0; i < sizes[axis]!; i++) copy(axis + 1, from + i * steps[axis]!);
  };
  copy(0, 0);
  return out;
}

/** Returns the order that undoes `axes`. */
export const inverse = (axes: readonly number[]): number[] => axes.map((_, i) => axes.indexOf(i));

/** [n, tokens, heads, headDim] and [n, heads, tokens, headDim] in terms of each other. */
export const HEADS_FIRST = [0, 2, 1, 3];
