// What a graph costs before it runs anywhere: operations by what the ops are, memory by what is alive together.

import { columns, type Shape, storageBytes } from '../kernels/tensor.ts';
import { fuse } from './fuse.ts';
import type { Graph, Node, Value } from './graph.ts';
import type { OpName } from './ops/table.ts';

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
    activationBytes: peakBytes(fuse(graph)),
  };
}

const elements = (shape: Shape): number => shape[0] * columns(shape);

function flopOf(node: Node): number {
  const made = elements(node.output.shape);
  switch (node.op) {
    case 'conv2d': {
      const { kernel } = node.attributes;
      return 2 * made * node.inputs.x!.shape[0] * kernel[0] * kernel[1];
    }
    case 'linear':
      return 2 * made * node.inputs.x!.shape[0];
    case 'attention': {
      const [, , height, width] = node.inputs.k!.shape;
      const keys = height * width;
      return 4 * made * keys + node.attributes.heads * columns(node.output.shape) * keys;
    }
    case 'concat':
    case 'slice':
    case 'gather':
    case 'pickSamples':
    case 'pickHead':
    case 'upsample':
      return 0;
    case 'sumPixels':
    case 'sumColumns':
      return elements(node.inputs.x!.shape);
    case 'errors':
      return elements(node.inputs.xt!.shape);
    default:
      return made;
  }
}

/** Most bytes alive at once, where slices and the parts of concatenations lie in their whole. */
function peakBytes({ nodes, inputs, outputs }: Graph): number {
  const shapes = new Map<number, Shape>(nodes.map(({ output }) => [output.id, output.shape]));
  const whole = new Map<number, number>();
  for (const node of nodes) {
    if (node.op === 'slice') whole.set(node.output.id, node.inputs.x!.id);
    if (node.op === 'concat')
      for (const { id } of Object.values(node.inputs)) if (!whole.has(id)) whole.set(id, node.output.id);
  }
  const rootOf = ({ id }: Value): number => {
    let root = id;
    for (let up = whole.get(root); up !== undefined; up = whole.get(root)) root = up;
    return root;
  };
  const given = new Set([...inputs.values()].map(({ id }) => id));
  const kept = new Set([...outputs.values()].map(rootOf));
  const last = new Map<number, number>();
  nodes.forEach((node, i) => {
    for (const value of [...Object.values(node.inputs), node.output]) last.set(rootOf(value), i);
  });
  const ending = nodes.map((): number[] => []);
  for (const [root, i] of last) ending[i]!.push(root);
  const alive = new Set<number>();
  let bytes = 0;
  let peak = 0;
  nodes.forEach((node, i) => {
    const root = rootOf(node.output);
    if (!alive.has(root) && !given.has(root)) {
      alive.add(root);
      bytes += storageBytes(shapes.get(root)!);
    }
    peak = Math.max(peak, bytes);
    for (const over of ending[i]!)
      if (!kept.has(over) && alive.delete(over)) bytes -= storageBytes(shapes.get(over)!);
  });
  return peak;
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
