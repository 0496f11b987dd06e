// Decides how the values of a graph are stored in a plan of a precision. In f16, activations take half the memory; what
// decides between candidates stays f32: their errors differ by about 1e-4 of themselves, and f16 has 5e-4 between numbers.

import type { Stored } from '../../kernels/device/storage.ts';
import { columns, type Shape } from '../../kernels/device/tensor.ts';
import { onlyMoves } from '../ops/op.ts';
import { opOf } from '../ops/table.ts';
import type { Graph } from './graph.ts';

/** Returns how a value is stored, by its id. */
export type StoredTypes = (id: number) => Stored;

/** All values as f32. */
export const ALL_F32: StoredTypes = () => 'f32';

/** Whether a value has one number per channel and sample: embeddings, statistics and rows of norms, sums of errors. */
const isRow = (shape: Shape): boolean => columns(shape) === shape[1];

/**
 * Returns how a plan of a precision stores each value of a fused graph. In f16 these are f32:
 * - inputs, which the caller writes, and outputs, which it reads;
 * - values with one number per channel and sample;
 * - inputs that an op needs exactly (`Op.exact`), such as the prediction and the noised image of an error, and everything
 *   that is only moved to become one.
 *
 * Scratch memory of kernels, such as scores of attention and transformed tiles, is always f32.
 *
 * No other values are f32, because none matter more than the rest. In the golden pipeline sd1, whose UNet has 8 to 16
 * channels, the root mean square of the relative changes of errors is 8.3e-4 (300 evaluations). Each of the 191 values in
 * f16 contributes on its own, the largest 3.3e-4. It is 8.1e-4 if the residual stream and the skips are f32, 7.3e-4 if what
 * norms read is, 6.0e-4 if everything before the first prompt is, and 2.4e-4 if stream, keys and everything before the
 * first prompt are. A UNet of Stable Diffusion 1.5 would then take 1,050 MiB instead of 720 (activations of 16 samples),
 * and one of its shape with 64 to 256 channels changes by only 3.2e-5, all in f16.
 */
export function storedTypes({ nodes, inputs, outputs }: Graph, precision: Stored): StoredTypes {
  if (precision === 'f32') return ALL_F32;
  const exact = new Set([...inputs.values(), ...outputs.values()].map(({ id }) => id));
  for (const node of nodes.toReversed()) {
    const op = opOf(node);
    if (isRow(node.output.shape)) exact.add(node.output.id);
    const moved = onlyMoves(op) && exact.has(node.output.id) ? Object.keys(node.inputs) : [];
    for (const name of [...moved, ...(op.exact ?? [])]) exact.add(node.inputs[name]!.id);
  }
  return (id) => (exact.has(id) ? 'f32' : 'f16');
}
