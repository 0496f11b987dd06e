// The cost of a graph, known before it runs: the operations of its nodes, and the memory that is alive at once.

import type { Stored } from '../../kernels/device/storage.ts';
import { storageBytes } from '../../kernels/device/tensor.ts';
import { type OpName, opOf } from '../ops/table.ts';
import { fuse } from './fuse.ts';
import { type Graph, type Node, shapesOf } from './graph.ts';
import { layout } from './layout.ts';
import { storedTypes } from './precision.ts';

/** The cost of one run of a graph. */
export interface Cost {
  /** Floating-point operations; a multiplication and its addition count as two. */
  readonly flop: number;
  /** The same, summed by op. */
  readonly flopByOp: ReadonlyMap<OpName, number>;
  /** The total length of all constants, each name counted once. */
  readonly constants: number;
  /** Bytes of the graph's inputs: images in slots, embeddings of prompts, indices. */
  readonly inputBytes: number;
  /** The largest number of bytes of node outputs that are alive at once, without the kernels' scratch memory. */
  readonly activationBytes: number;
}

/**
 * Returns the cost of a graph at its shapes, in a plan of a precision. `Op.flop` defines what counts as an operation. The
 * padding of a convolution is counted like pixels.
 */
export function costOf(graph: Graph, precision: Stored = 'f32'): Cost {
  const fused = fuse(graph);
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
    activationBytes: layout(fused, 4, { stored: storedTypes(fused, precision) }).peakBytes,
  };
}

/** Returns the floating-point operations of one run of a node. */
export const flopOf = (node: Node): number => opOf(node).flop(shapesOf(node), node.attributes);

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
