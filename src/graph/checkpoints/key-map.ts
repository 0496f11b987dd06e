// The key map of a network: which tensor of a checkpoint is which tensor of diffusers or transformers.

import { ModelError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import { quote } from '../files/json.ts';
import { DTYPE_BITS } from '../files/safetensors-header.ts';
import type { VirtualTensor } from '../files/virtual-safetensors.ts';

/** The tensors of one network of a checkpoint, by their names without the network's prefix. */
export type Tensors = ReadonlyMap<string, VirtualTensor>;

/** One line of a key map: names that match become `to`, in which $1, $2, ... are the pattern's groups. */
export type KeyRule = readonly [from: RegExp, to: string];

/** Returns the tensors whose names match. */
export const matching = (tensors: Tensors, pattern: RegExp): Tensors =>
  new Map([...tensors].filter(([name]) => pattern.test(name)));

/** Returns the tensors whose names begin with a prefix, without it. */
export const withPrefix = (tensors: Tensors, prefix: string): Tensors =>
  new Map(
    [...tensors].flatMap(([name, tensor]) =>
      name.startsWith(prefix) && name.length > prefix.length
        ? [[name.slice(prefix.length), tensor] as const]
        : [],
    ),
  );

/** Returns the tensors by the names that all matching rules, one after the other, make of theirs. */
export function mapKeys(tensors: Tensors, rules: readonly KeyRule[]): Map<string, VirtualTensor> {
  const renamed = (name: string) => rules.reduce((result, [from, to]) => result.replace(from, to), name);
  return new Map([...tensors].map(([name, tensor]) => [renamed(name), tensor]));
}

/** Returns part `index` of a tensor whose first axis is cut into `count` equal parts. */
export function partOfRows(tensor: VirtualTensor, index: number, count: number): VirtualTensor {
  const [rows = 0, ...rest] = tensor.shape;
  const shape = [rows / count, ...rest];
  const begin = (index * product(shape) * DTYPE_BITS[tensor.dtype]) / 8;
  return { dtype: tensor.dtype, shape, read: (from, into) => tensor.read(begin + from, into) };
}

/** Returns a matrix with rows and columns exchanged; it is read whole. */
export function transposed(tensor: VirtualTensor): VirtualTensor {
  const [rows, columns] = tensor.shape as [number, number];
  const size = DTYPE_BITS[tensor.dtype] / 8;
  return {
    dtype: tensor.dtype,
    shape: [columns, rows],
    async read(from, into) {
      const bytes = new Uint8Array(rows * columns * size);
      await tensor.read(0, bytes);
      for (let k = 0; k < into.length; k++) {
        const element = Math.floor((from + k) / size);
        const at = (element % rows) * columns + Math.floor(element / rows);
        into[k] = bytes[at * size + ((from + k) % size)]!;
      }
    },
  };
}

/** A function that returns the shape of a tensor, and throws `ModelError` if it is missing or of another rank. */
export type ShapeOf = (name: string, rank: number) => readonly number[];

/** Returns a `ShapeOf` for a network's tensors. `path` begins its messages, and `prefix` completes names in them. */
export const shapesOf =
  (tensors: Tensors, path: string, prefix: string): ShapeOf =>
  (name, rank) => {
    const shape = tensors.get(name)?.shape;
    if (!shape) throw new ModelError(`${path}: tensor ${quote(prefix + name)} is missing`);
    if (shape.length !== rank)
      throw new ModelError(
        `${path}: tensor ${quote(prefix + name)}: expected ${rank} dimensions, got the shape [${shape.join(', ')}]`,
      );
    return shape;
  };

/** Returns how many numbers 0, 1, 2, ... a pattern's group takes in the names; none may be left out. */
export function countOf(tensors: Tensors, pattern: RegExp): number {
  const numbers = new Set<number>();
  for (const name of tensors.keys()) {
    const found = pattern.exec(name)?.[1];
    if (found !== undefined) numbers.add(Number(found));
  }
  let count = 0;
  while (numbers.has(count)) count++;
  return count;
}

/** Returns a number of heads: `width` / 64, and one if the width is less. @throws ModelError if they do not divide it. */
export function headsOf64(width: number, path: string, network: string): number {
  const heads = Math.max(1, Math.floor(width / 64));
  if (width % heads !== 0)
    throw new ModelError(`${path}: the ${network} has ${width} channels, which are not heads of 64`);
  return heads;
}
