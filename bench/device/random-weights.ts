// Random weights for networks that are only timed. They are scaled by the fan-in, so that activations keep their size
// through every layer. All values repeat one block of a million, because generating 860 million takes too long.

import type { Parameters } from '../../src/graph/files/parameters.ts';
import { f32ToF16 } from '../../src/kernels/device/half.ts';
import type { Elements } from '../../src/kernels/device/routine.ts';
import { product } from '../../src/numbers.ts';
import { randomUniform } from '../random.ts';

const BLOCK = 2 ** 20;

let unit: Float32Array<ArrayBuffer> | undefined;

/** Returns a million values in [-1, 1) that are the same in every run. */
export function randomBlock(): Float32Array<ArrayBuffer> {
  if (unit) return unit;
  const random = randomUniform(1);
  unit = Float32Array.from({ length: BLOCK }, () => 2 * random() - 1);
  return unit;
}

/** Fills an array with repetitions of the block. */
export function fillRandom(values: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const block = randomBlock();
  for (let from = 0; from < values.length; from += BLOCK)
    values.set(block.subarray(0, Math.min(BLOCK, values.length - from)), from);
  return values;
}

/** Returns parameters with random values in the shapes that a network requests; no file is read. */
export function randomParameters(): Parameters {
  const blocks = new Map<string, Elements>();
  /** Returns the block times `scale` plus `offset`, as f32 or f16. */
  const blockOf = (half: boolean, scale: number, offset: number): Elements => {
    const key = `${half} ${scale} ${offset}`;
    let block = blocks.get(key);
    if (!block) {
      const floats = randomBlock().map((value) => offset + scale * value);
      block = floats;
      if (half) {
        block = new Uint16Array(BLOCK);
        f32ToF16(floats, block);
      }
      blocks.set(key, block);
    }
    return block;
  };
  return (name, shape) => {
    const length = product(shape);
    const isNorm = shape.length === 1 && name.endsWith('weight');
    // Uniform values in [-s, s) have a standard deviation of s / sqrt(3).
    const scale = shape.length > 1 ? Math.sqrt((3 * shape[0]!) / length) : isNorm ? 0.1 : 0.05;
    const read = async (from: number, into: Elements): Promise<void> => {
      const block = blockOf(into instanceof Uint16Array, scale, isNorm ? 1 : 0);
      for (let at = from; at < from + into.length; ) {
        // The position in the block depends only on the position in the tensor, however the tensor is read.
        const within = at % BLOCK;
        const count = Math.min(from + into.length - at, BLOCK - within);
        into.set(block.subarray(within, within + count), at - from);
        at += count;
      }
    };
    const values = async () => {
      const all = new Float32Array(length);
      await read(0, all);
      return all;
    };
    return { name, length, read, values };
  };
}
