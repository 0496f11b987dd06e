// What a graph costs before it runs anywhere: operations by what the ops are, memory by what is alive together.

import { storageBytes } from '../kernels/tensor.ts';
import { fuse } from './fuse.ts';
import { type Graph, type Node, shapesOf } from './graph.ts';
import { layout } from './layout.ts';
import { type OpName, opOf } from './ops/table.ts';

/** What one run of a graph takes. */
export interface Cost {
  /** Floating-point operations; a multiplication and its addition are two. */
  readonly flop: number;
  /** The same by op, those of one op together. */
  readonly flopByOp: ReadonlyMap<OpName, number>;
  /** Values of all constants, each name once. */
  readonly constants: number;
  /** Bytes of the graph's inputs: images in slots, tables of prompts, indices. */
  readonly inputBytes: number;
  /** Most bytes of values between the nodes that are alive at once; kernels' scratch comes on top. */
  readonly activationBytes: number;
}

/**
 * The cost of a graph at its shapes: convolutions, linear layers and attention by their multiplications and
 * additions (every output of a convolution by its whole kernel, padding included), softmax and every op that works
 * element by element one operation an element, copies nothing.
 */
export function costOf(graph: Graph): Cost {
  const flopByOp = new Map<OpName, number>();
  const constants = new Map<string, number>();
  for (const node of graph.nodes) {
    flopByOp.set(node.op, (flopByOp.get(node.op) ?? 0) + flopOf(node));
    for (const { name, length } of Object.values(node.constants)) constants.set(name, length);
  }
  return {
    flop: sum(flopByOp.values()),
    flopByOp,
    constants: sum(constants.values()),
    inputBytes: sum([...graph.inputs.values()].map(({ shape }) => storageBytes(shape))),
    activationBytes: layout(fuse(graph), 4).peakBytes,
  };
}

/** Returns the floating-point operations of one run of a node. */
export const flopOf = (node: Node): number => opOf(node).flop(shapesOf(node), node.attributes);

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
