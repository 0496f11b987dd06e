// The change that a layer of a LoRA makes to a weight or bias of a model.

import { ModelError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import { quote } from '../files/json.ts';
import type { LoraLayer, LoraTensor } from './lora-file.ts';
import { addProduct, type Factors, factorsOf } from './low-rank.ts';
import { readValues } from './values.ts';

/** A change of a tensor. */
export interface Change {
  /** Adds it to `into`, which holds the tensor's elements from element `from` on. */
  add(into: Float64Array, from: number): Promise<void>;
}

/** Keeps the last value that was asked for, so that a tensor that is read in parts is computed once. */
export type KeepLast = <T extends object>(key: object, make: () => Promise<T>) => Promise<T>;

/** Returns a memory of one value. */
export function keepLast(): KeepLast {
  let last: { readonly key: object; readonly value: Promise<object> } | undefined;
  return <T extends object>(key: object, make: () => Promise<T>) => {
    if (last?.key !== key) last = { key, value: make() };
    return last.value as Promise<T>;
  };
}

interface Context {
  /** The LoRA's file in messages. */
  readonly path: string;
  /** The user's factor. */
  readonly weight: number;
  readonly keep: KeepLast;
}

/** Returns what a message calls a tensor with its shape. */
const shown = ({ name, tensor }: LoraTensor): string => `${quote(name)} [${tensor.shape.join(', ')}]`;

/**
 * Returns the change of a weight. A linear layer and a 1x1 convolution have the same weights in other shapes, so that a LoRA
 * of one fits the other.
 * @throws ModelError naming the first tensor that does not fit the weight.
 */
export function weightChange(
  { parts, scale }: LoraLayer,
  target: { readonly name: string; readonly shape: readonly number[] },
  context: Context,
): Change | undefined {
  const { path, weight, keep } = context;
  const misfit = (tensor: LoraTensor): ModelError =>
    new ModelError(
      `${path}: tensor ${shown(tensor)} does not fit the model's ${quote(target.name)} [${target.shape.join(', ')}]; this LoRA is for another base model`,
    );
  const diff = parts.get('diff');
  if (diff) return wholeChange(diff, target.shape, misfit, context);
  const [down, up, mid] = (['down', 'up', 'mid'] as const).map((part) => parts.get(part));
  if (!down || !up) return undefined;
  const [rows = 0, inputs = 1, ...kernel] = target.shape;
  const columns = product(target.shape.slice(1));
  const rank = down.tensor.shape[0] ?? 0;
  if (rank === 0) throw new ModelError(`${path}: tensor ${shown(down)} has the rank 0`);
  const middle = mid ? (mid.tensor.shape[0] ?? 0) : rank;
  // With a middle factor [middle, rank, ...kernel], the first one has no kernel.
  if (product(down.tensor.shape) !== rank * (mid ? inputs : columns)) throw misfit(down);
  if (mid && product(mid.tensor.shape) !== middle * rank * product(kernel)) throw misfit(mid);
  if (mid && (middle === 0 || mid.tensor.shape[1] !== rank)) throw misfit(mid);
  if (up.tensor.shape[0] !== rows || product(up.tensor.shape) !== rows * middle) throw misfit(up);
  const read = (from: LoraTensor) => readValues(from.tensor, from.name, path);
  const factors = async (): Promise<Factors> => {
    const first = await read(down);
    const sides = { middle, rank, inputs, kernel: product(kernel) };
    return factorsOf(await read(up), mid ? spread(await read(mid), first, sides) : first, middle);
  };
  return {
    add: async (into, from) => addProduct(await keep(parts, factors), weight * scale, into, from),
  };
}

/**
 * Returns the change of a bias.
 * @throws ModelError if it does not fit the bias.
 */
export function biasChange(
  { parts }: LoraLayer,
  target: { readonly name: string; readonly shape: readonly number[] },
  context: Context,
): Change | undefined {
  const bias = parts.get('bias');
  const misfit = (tensor: LoraTensor): ModelError =>
    new ModelError(
      `${context.path}: tensor ${shown(tensor)} does not fit the model's ${quote(target.name)} [${target.shape.join(', ')}]; this LoRA is for another base model`,
    );
  return bias && wholeChange(bias, target.shape, misfit, context);
}

/** Returns a change whose elements are those of a tensor. */
function wholeChange(
  from: LoraTensor,
  shape: readonly number[],
  misfit: (tensor: LoraTensor) => ModelError,
  { path, weight, keep }: Context,
): Change {
  if (from.tensor.shape[0] !== shape[0] || product(from.tensor.shape) !== product(shape)) throw misfit(from);
  return {
    async add(into, start) {
      const values = await keep(from, () => readValues(from.tensor, from.name, path));
      for (let i = 0; i < into.length; i++) into[i] = into[i]! + weight * values[start + i]!;
    },
  };
}

/** Returns down' [middle, inputs, kernel] = sum over the rank of mid [middle, rank, kernel] x down [rank, inputs]. */
function spread(
  mid: Float32Array,
  down: Float32Array,
  { middle, rank, inputs, kernel }: Readonly<Record<'middle' | 'rank' | 'inputs' | 'kernel', number>>,
): Float64Array {
  const out = new Float64Array(middle * inputs * kernel);
  for (let m = 0; m < middle; m++)
    for (let n = 0; n < rank; n++)
      for (let i = 0; i < inputs; i++) {
        const factor = down[n * inputs + i]!;
        const [to, from] = [(m * inputs + i) * kernel, (m * rank + n) * kernel];
        for (let k = 0; k < kernel; k++) out[to + k] = out[to + k]! + factor * mid[from + k]!;
      }
  return out;
}
