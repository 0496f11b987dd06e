// What a graph costs before it runs anywhere: operations by what the ops are, memory by what is alive together.

import { columns, type Shape, storageBytes } from '../kernels/tensor.ts';
import { fuse } from './fuse.ts';
import type { Graph, Node } from './graph.ts';
import { layout } from './layout.ts';
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
    activationBytes: layout(fuse(graph), 4).peakBytes,
  };
}

const elements = (shape: Shape): number => shape[0] * columns(shape);

/** Floating-point operations of a node. */
export function flopOf(node: Node): number {
  const made = elements(node.output.shape);
  switch (node.op) {
    case 'conv2d': {
      const { kernel } = node.attributes;
      return 2 * made * node.inputs.x!.shape[0] * kernel[0] * kernel[1];
    }
    case 'weightGradient':
      return 2 * made * columns(node.inputs.dy!.shape);
    case 'linear':
      return 2 * made * node.inputs.x!.shape[0];
    case 'attention': {
      const [, , height, width] = node.inputs.k!.shape;
      const keys = height * width;
      return 4 * made * keys + node.attributes.heads * columns(node.output.shape) * keys;
    }
    case 'attentionGradient': {
      const { q, k } = node.inputs;
      const keys = columns(k!.shape) / k!.shape[1];
      const products = { q: 3, kv: 4, qkv: 5 }[node.attributes.of];
      return (2 * products * q!.shape[0] + node.attributes.heads) * columns(q!.shape) * keys;
    }
    case 'concat':
    case 'slice':
    case 'padChannels':
    case 'pad':
    case 'depthToSpace':
    case 'spaceToDepth':
    case 'gather':
    case 'pickSamples':
    case 'pickHead':
    case 'flatten':
    case 'unflatten':
    case 'upsample':
      return 0;
    case 'sumPixels':
    case 'sumColumns':
    case 'sumSamples':
    case 'groupNormSums':
      return elements(node.inputs.x!.shape);
    case 'sumPicked':
    case 'gatherGradient':
    case 'slotsGradient':
      return elements(node.inputs.dy!.shape);
    case 'errors':
      return elements(node.inputs.xt!.shape);
    default:
      return made;
  }
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
