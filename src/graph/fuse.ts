// Rewrites that make one launch of two: what a consumer can do on its way past memory is not a node of its own.

import type { Graph, Node, NodeOf, Value } from './graph.ts';

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
  let nodes = needed(graph);
  const kept = new Set([...graph.outputs.values()].map((value) => value.id));
  const replaced = (node: Node, inputs: Node['inputs'], attributes: object = {}): Node =>
    ({ ...node, inputs, attributes: { ...node.attributes, ...attributes } }) as Node;
  let values = graph.values;

  const onlyConvolutions = (consumers: readonly Node[], value: Value): consumers is NodeOf<'conv2d'>[] =>
    consumers.length > 0 &&
    !kept.has(value.id) &&
    consumers.every((node) => node.op === 'conv2d' && node.inputs.x === value && !node.inputs.affine);

  for (const node of [...nodes]) {
    if (node.op !== 'groupNorm' && node.op !== 'upsample') continue;
    const consumers = readers(nodes).get(node.output.id) ?? [];
    if (node.op === 'groupNorm' && onlyConvolutions(consumers, node.output)) {
      const [c, n] = node.output.shape;
      const affine: Value = { id: values++, shape: [2 * c, n, 1, 1] };
      const { activation, ...attributes } = node.attributes;
      const rows: NodeOf<'groupNormAffine'> = { ...node, op: 'groupNormAffine', attributes, output: affine };
      nodes = nodes.map((other) => {
        if (other === node) return rows;
        return consumers.includes(other as NodeOf<'conv2d'>)
          ? replaced(other, { ...other.inputs, x: node.inputs.x!, affine }, { activation })
          : other;
      });
    } else if (node.op === 'upsample' && !node.attributes.size && onlyConvolutions(consumers, node.output)) {
      const fits = consumers.every(
        ({ attributes: { kernel, stride, upsample } }) =>
          kernel[0] === 3 && kernel[1] === 3 && stride === 1 && !upsample,
      );
      if (!fits) continue;
      nodes = nodes.flatMap((other) => {
        if (other === node) return [];
        return consumers.includes(other as NodeOf<'conv2d'>)
          ? [replaced(other, { ...other.inputs, x: node.inputs.x! }, { upsample: 2 })]
          : [other];
      });
    }
  }

  // Additions: the maker of one operand takes the addition in, where it was if the other is there before it runs, else
  // where the addition was.
  for (const node of nodes.filter(({ op }) => op === 'add' || op === 'addRows')) {
    const use = readers(nodes);
    const position = (value: Value) => nodes.findIndex(({ output }) => output.id === value.id);
    const [first, second] = Object.values(node.inputs) as [Value, Value];
    const scale = node.op === 'add' ? (node.attributes.scale ?? 1) : 1;
    const operand = node.op === 'add' ? 'residual' : 'embedding';
    const takesIn = (made: Value): boolean => {
      const maker = nodes[position(made)];
      if (!maker || kept.has(made.id) || use.get(made.id)?.length !== 1) return false;
      if (maker.inputs.residual || maker.inputs[operand]) return false;
      if (maker.op === 'groupNormGradient') return operand === 'residual' && scale === 1;
      if (maker.op === 'conv2d') return (maker.attributes.scale ?? 1) === 1;
      return maker.op === 'linear' && operand === 'residual' && !actsOrScales(maker.attributes);
    };
    const later = (made: Value, other: Value) => position(made) > position(other);
    const able = (node.op === 'add' ? [first, second] : [first]).filter(takesIn);
    const made = able.find((value) => later(value, value === first ? second : first)) ?? able[0];
    if (!made || first === second) continue;
    const other = made === first ? second : first;
    const maker = nodes[position(made)]!;
    const inputs = { ...maker.inputs, [operand]: other };
    const fused = { ...replaced(maker, inputs, scale === 1 ? {} : { scale }), output: node.output } as Node;
    const [from, to] = later(made, other) ? [maker, node] : [node, maker];
    nodes = nodes.flatMap((candidate) =>
      candidate === from ? [fused] : candidate === to ? [] : [candidate],
    );
  }
  return { nodes, inputs: graph.inputs, outputs: graph.outputs, values };
}

const actsOrScales = ({ activation = 'none', scale = 1 }: NodeOf<'linear'>['attributes']): boolean =>
  activation !== 'none' || scale !== 1;
