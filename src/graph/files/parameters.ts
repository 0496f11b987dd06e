// The weights of a checkpoint as constants of a graph. They are read when a plan first uses them.

import type { Elements } from '../../kernels/device/routine.ts';
import { product } from '../../numbers.ts';
import type { Constant } from '../ops/value.ts';
import { checkTensors, type ExpectedTensor } from './expected-tensors.ts';
import type { TensorFile } from './safetensors.ts';

/**
 * Returns a weight of a checkpoint. The arguments are those of `ExpectedTensor`: a network states each of its tensors
 * only here, and `recordTensors` makes the list of expected tensors from these requests.
 */
export type Parameters = (name: string, shape: readonly number[], oldName?: string) => Constant;

/**
 * Returns the parameters of a file.
 * @throws ModelError if the file does not hold exactly the expected tensors, naming the first few tensors concerned.
 */
export function parametersOf(file: TensorFile, expected: readonly ExpectedTensor[]): Parameters {
  const tensors = checkTensors(expected, file);
  return (name) => {
    const info = tensors.get(name);
    if (!info) throw new Error(`the network requests ${name}, which is not among its expected tensors`);
    const length = product(info.shape);
    const read = (from: number, into: Elements) => file.readPart(info.name, from, into);
    const values = async () => {
      const all = new Float32Array(length);
      await read(0, all);
      return all;
    };
    return { name, length, values, read };
  };
}
