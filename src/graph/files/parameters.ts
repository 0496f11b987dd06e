// The weights of a checkpoint as constants of a graph, read when a plan first wants them.

import type { Elements } from '../../kernels/device/routine.ts';
import type { Constant } from '../ops/value.ts';
import { checkTensors, type ExpectedTensor } from './expected-tensors.ts';
import type { TensorFile } from './safetensors.ts';

/** A weight of the checkpoint by its name; several names are joined along their first axis. */
export type Parameters = (...names: string[]) => Constant;

const elements = (shape: readonly number[]): number => shape.reduce((product, side) => product * side, 1);

/**
 * The parameters of a file that holds exactly the expected tensors.
 * @throws ModelError where it does not, naming the file and the first few tensors concerned.
 */
export function parametersOf(file: TensorFile, expected: readonly ExpectedTensor[]): Parameters {
  const tensors = checkTensors(expected, file);
  return (...names) => {
    const infos = names.map((name) => {
      const info = tensors.get(name);
      if (!info) throw new Error(`the network asks for ${name}, which is not among its expected tensors`);
      return info;
    });
    const length = infos.reduce((sum, { shape }) => sum + elements(shape), 0);
    const read = async (from: number, into: Elements) => {
      let begin = 0;
      for (const { name, shape } of infos) {
        const first = Math.max(from, begin);
        const end = Math.min(from + into.length, begin + elements(shape));
        if (first < end) await file.readPart(name, first - begin, into.subarray(first - from, end - from));
        begin += elements(shape);
      }
    };
    const values = async () => {
      const joined = new Float32Array(length);
      await read(0, joined);
      return joined;
    };
    return { name: names.join('+'), length, values, read };
  };
}
