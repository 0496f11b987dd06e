// Splits values that are too large for a binding into ranges of channels, which are values of their own. An autoencoder's
// first layers need it: 128 channels of 1,024 x 1,024 pixels are 512 MiB, and some devices bind 128 MiB at once.
//
// The ops state how they compute ranges of channels (`Op.split`); no op is named here. Whether and how a value is split
// depends on a single sample of it, never on the batch, so that a sample has the same bytes in any batch.

import { type Shape, storageBytes } from '../../kernels/device/tensor.ts';
import type { Apply } from '../ops/op.ts';
import { nameOfOp, opOf } from '../ops/table.ts';
import type { Value } from '../ops/value.ts';
import { apply, concatenate, type Graph, newGraph } from './graph.ts';

/**
 * Returns the number of ranges: 1 if a sample fits; otherwise the smallest power of two with which each range fits, and 1 if
 * the channels cannot be divided so. Groups of channels are usually a power of two too, and then stay whole.
 */
function rangesOf([c, , h, w]: Shape, bindingBytes: number): number {
  for (let ranges = 1; c % ranges === 0; ranges *= 2)
    if (storageBytes([c / ranges, 1, h, w]) <= bindingBytes) return ranges;
  return 1;
}

/**
 * Returns a graph of the same outputs in which no value is larger than `bindingBytes` per sample, as far as the ops can be
 * split. A value that cannot be split stays whole, and `plan` refuses it.
 */
export function splitLarge(graph: Graph, bindingBytes: number): Graph {
  if (graph.nodes.every(({ output }) => rangesOf(output.shape, bindingBytes) === 1)) return graph;
  const made: Graph = { ...newGraph(), inputs: graph.inputs, values: graph.values };
  const add: Apply = (op, attributes, inputs, constants) =>
    apply(made, nameOfOp(op), attributes as never, inputs, constants);
  /** The ranges of values that were split or replaced, by id. */
  const ranges = new Map<number, readonly Value[]>();
  const rangesOfValue = (value: Value) => ranges.get(value.id) ?? [value];
  const whole = (value: Value) => concatenate(made, rangesOfValue(value));
  for (const node of graph.nodes) {
    const count = rangesOf(node.output.shape, bindingBytes);
    const inputs = Object.fromEntries(
      Object.entries(node.inputs).map(([name, value]) => [name, rangesOfValue(value)]),
    );
    const concerned = count > 1 || Object.values(inputs).some((list) => list.length > 1);
    const { attributes, constants } = node;
    const found = concerned
      ? opOf(node).split?.({ attributes, inputs, constants, ranges: count, apply: add })
      : undefined;
    if (found) ranges.set(node.output.id, found);
    else {
      const joined = Object.entries(node.inputs).map(([name, value]) => [name, whole(value)]);
      made.nodes.push({ ...node, inputs: Object.fromEntries(joined) });
    }
  }
  for (const [name, value] of graph.outputs) made.outputs.set(name, whole(value));
  return made;
}
