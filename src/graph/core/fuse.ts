// Rewrites that make one launch of two: what a consumer can do on its way past memory is not a node of its own.

import type { Value } from '../ops/value.ts';
import type { Graph, Node, NodeOf } from './graph.ts';

/** Nodes that read each value, by its id. */
function readers(nodes: readonly Node[]): Map<number, Node[]> {
  const found = new Map<number, Node[]>();
  for (const node of nodes)
    for (const { id } of Object.values(node.inputs)) found.set(id, [...(found.get(id) ?? []), node]);
  return found;
}

/** The nodes that some output needs. */
export function needed({ nodes, outputs }: Pick<Graph, 'nodes' | 'outputs'>): Node[] {
  const wanted = new Set([...outputs.values()].map(({ id }) => id));
  const found = nodes.toReversed().filter(({ inputs, output }) => {
    if (!wanted.has(output.id)) return false;
    for (const { id } of Object.values(inputs)) wanted.add(id);
    return true;
  });
  return found.reverse();
}

/**
 * The same graph with fewer nodes:
 * - what no output needs is left out;
 * - a group norm read only by convolutions becomes its affine rows, applied in the convolutions' loads;
 * - an upsampling read only by 3x3 convolutions of stride 1 is done there;
 * - an addition to the only result of a convolution, a linear layer or a group norm's gradient becomes its embedding
 *   or residual.
 */
export function fuse(graph: Graph): Graph {
  const kept = new Set([...graph.outputs.values()].map((value) => value.id));
  const { nodes, values } = intoConvolutions(graph, kept);
  return { nodes: withoutAdditions(nodes, kept), inputs: graph.inputs, outputs: graph.outputs, values };
}

const replaced = (node: Node, inputs: Node['inputs'], attributes: object = {}): Node =>
  ({ ...node, inputs, attributes: { ...node.attributes, ...attributes } }) as Node;

/** Norms and upsamplings into the convolutions that read them. */
function intoConvolutions(graph: Graph, kept: ReadonlySet<number>): { nodes: Node[]; values: number } {
  const nodes = needed(graph);
  const use = readers(nodes);
  let { values } = graph;
  /** What stands in the place of a node. */
  const instead = new Map<Node, Node | undefined>();
  const onlyConvolutions = (consumers: readonly Node[], value: Value): consumers is NodeOf<'conv2d'>[] =>
    consumers.length > 0 &&
    !kept.has(value.id) &&
    consumers.every((node) => node.op === 'conv2d' && node.inputs.x === value && !node.inputs.affine);

  for (const node of nodes) {
    if (node.op !== 'groupNorm' && node.op !== 'upsample') continue;
    const consumers = use.get(node.output.id) ?? [];
    if (!onlyConvolutions(consumers, node.output)) continue;
    if (node.op === 'groupNorm') {
      const [c, n] = node.output.shape;
      const affine: Value = { id: values++, shape: [2 * c, n, 1, 1] };
      const { activation, ...attributes } = node.attributes;
      const rows: NodeOf<'groupNormAffine'> = { ...node, op: 'groupNormAffine', attributes, output: affine };
      instead.set(node, rows);
      for (const consumer of consumers)
        instead.set(
          consumer,
          replaced(consumer, { ...consumer.inputs, x: node.inputs.x!, affine }, { activation }),
        );
    } else if (!node.attributes.size) {
      const fits = consumers.every(
        ({ attributes: { kernel, stride, upsample } }) =>
          kernel[0] === 3 && kernel[1] === 3 && stride === 1 && !upsample,
      );
      if (!fits) continue;
      instead.set(node, undefined);
      for (const consumer of consumers)
        instead.set(consumer, replaced(consumer, { ...consumer.inputs, x: node.inputs.x! }, { upsample: 2 }));
    }
  }
  const left = nodes.map((node) => (instead.has(node) ? instead.get(node) : node));
  return { nodes: left.filter((node) => node !== undefined), values };
}

/**
 * Additions into the makers of their operands: each where it was, if the other operand is there before it runs, else
 * where the addition was.
 */
function withoutAdditions(nodes: readonly Node[], kept: ReadonlySet<number>): Node[] {
  const use = readers(nodes);
  const makers = new Map(nodes.map((node) => [node.output.id, node]));
  const places = new Map(nodes.map((node, i) => [node.output.id, i]));
  const place = ({ id }: Value) => places.get(id) ?? -1;
  for (const node of nodes) {
    if (node.op !== 'add' && node.op !== 'addRows') continue;
    const [first, second] = Object.values(node.inputs) as [Value, Value];
    const scale = node.op === 'add' ? (node.attributes.scale ?? 1) : 1;
    const operand = node.op === 'add' ? 'residual' : 'embedding';
    const takesIn = (made: Value): boolean => {
      const maker = makers.get(made.id);
      if (!maker || kept.has(made.id) || use.get(made.id)?.length !== 1) return false;
      if (maker.inputs.residual || maker.inputs[operand]) return false;
      if (maker.op === 'groupNormGradient') return operand === 'residual' && scale === 1;
      if (maker.op === 'conv2d') return (maker.attributes.scale ?? 1) === 1;
      return maker.op === 'linear' && operand === 'residual' && !actsOrScales(maker.attributes);
    };
    const other = (made: Value) => (made === first ? second : first);
    const able = first === second ? [] : (node.op === 'add' ? [first, second] : [first]).filter(takesIn);
    const made = able.find((value) => place(value) > place(other(value))) ?? able[0];
    if (!made) continue;
    const maker = makers.get(made.id)!;
    const inputs = { ...maker.inputs, [operand]: other(made) };
    const fused = replaced(maker, inputs, scale === 1 ? {} : { scale });
    makers.delete(made.id);
    makers.set(node.output.id, { ...fused, output: node.output } as Node);
    if (place(made) > place(other(made))) places.set(node.output.id, place(made));
  }
  return [...makers.values()].sort((one, next) => place(one.output) - place(next.output));
}

const actsOrScales = ({ activation = 'none', scale = 1 }: NodeOf<'linear'>['attributes']): boolean =>
  activation !== 'none' || scale !== 1;
