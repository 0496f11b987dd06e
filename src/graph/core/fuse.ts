// Rewrites that save kernel launches and memory traffic: work that another node can do on the way gets no node of its own.
// The entries of the op table state what can be fused; no op is named here.

import type { InLoad } from '../ops/op.ts';
import { nameOfOp, opOf } from '../ops/table.ts';
import type { Value } from '../ops/value.ts';
import { type Graph, type Node, shapesOf } from './graph.ts';

/** Returns the nodes that read each value, by the id of the value. */
export function readers(nodes: readonly Node[]): ReadonlyMap<number, readonly Node[]> {
  const found = new Map<number, Node[]>();
  for (const node of nodes)
    for (const { id } of Object.values(node.inputs)) found.set(id, [...(found.get(id) ?? []), node]);
  return found;
}

/** Returns the nodes that some output depends on. */
export function needed({ nodes, outputs }: Pick<Graph, 'nodes' | 'outputs'>): Node[] {
  const used = new Set([...outputs.values()].map(({ id }) => id));
  const found = nodes.toReversed().filter(({ inputs, output }) => {
    if (!used.has(output.id)) return false;
    for (const { id } of Object.values(inputs)) used.add(id);
    return true;
  });
  return found.reverse();
}

/** Returns what all consumers of a node can do while they load its input; undefined if one of them cannot. */
export function inLoadsOf(node: Node, consumers: readonly Node[] = []): InLoad | undefined {
  const inLoad = opOf(node).inLoad?.(node.attributes);
  const able =
    inLoad &&
    consumers.length > 0 &&
    consumers.every(
      (consumer) =>
        consumer.inputs.x?.id === node.output.id &&
        !consumer.inputs.affine &&
        opOf(consumer).loads?.(inLoad, consumer.attributes),
    );
  return able ? inLoad : undefined;
}

/**
 * Returns the same graph with fewer nodes:
 * - nodes that no output depends on are left out;
 * - a node that all its consumers can apply in their loads (`Op.inLoad`, `Op.loads`) is left out; a group norm leaves the
 *   node that computes its rows;
 * - an addition becomes an operand of the op that computes one of the summands (`Op.addition`, `Op.adds`), if nothing else
 *   reads that summand.
 */
export function fuse(graph: Graph): Graph {
  const kept = new Set([...graph.outputs.values()].map((value) => value.id));
  const { nodes, values } = intoLoads(graph, kept);
  return { nodes: withoutAdditions(nodes, kept), inputs: graph.inputs, outputs: graph.outputs, values };
}

const replaced = (node: Node, inputs: Node['inputs'], attributes: object = {}): Node =>
  ({ ...node, inputs, attributes: { ...node.attributes, ...attributes } }) as Node;

/** Moves nodes into the loads of their consumers. */
function intoLoads(graph: Graph, kept: ReadonlySet<number>): { nodes: Node[]; values: number } {
  const nodes = needed(graph);
  const use = readers(nodes);
  let { values } = graph;
  /** The replacements of nodes; undefined for a node that is left out. */
  const replacements = new Map<Node, Node | undefined>();
  for (const node of nodes) {
    const consumers = use.get(node.output.id) ?? [];
    const inLoad = kept.has(node.output.id) ? undefined : inLoadsOf(node, consumers);
    if (!inLoad) continue;
    const inputs: Record<string, Value> = { x: node.inputs.x! };
    if (inLoad.rows) {
      const { op, attributes } = inLoad.rows;
      inputs.affine = { id: values++, shape: op.infer(shapesOf(node).inputs, attributes) };
      const rows = { ...node, op: nameOfOp(op), attributes, output: inputs.affine };
      replacements.set(node, rows as unknown as Node);
    } else replacements.set(node, undefined);
    for (const consumer of consumers)
      replacements.set(consumer, replaced(consumer, { ...consumer.inputs, ...inputs }, inLoad.attributes));
  }
  const left = nodes.map((node) => (replacements.has(node) ? replacements.get(node) : node));
  return { nodes: left.filter((node) => node !== undefined), values };
}

/**
 * Moves additions into the nodes that compute their operands. The node stays at its position if the other operand is
 * computed before it, and otherwise moves to the position of the addition.
 */
function withoutAdditions(nodes: readonly Node[], kept: ReadonlySet<number>): Node[] {
  const use = readers(nodes);
  const makers = new Map(nodes.map((node) => [node.output.id, node]));
  const positions = new Map(nodes.map((node, i) => [node.output.id, i]));
  const positionOf = ({ id }: Value) => positions.get(id) ?? -1;
  for (const node of nodes) {
    const addition = opOf(node).addition?.(node.attributes);
    if (!addition) continue;
    const { operand, scale } = addition;
    const [first, second] = Object.values(node.inputs) as [Value, Value];
    const other = (summand: Value) => (summand === first ? second : first);
    const able = addition.into
      .map((name) => node.inputs[name]!)
      .filter((summand) => {
        const maker = makers.get(summand.id);
        if (!maker || first === second || kept.has(summand.id)) return false;
        if (use.get(summand.id)?.length !== 1 || maker.inputs.residual || maker.inputs[operand]) return false;
        return opOf(maker).adds?.(addition, maker.attributes) ?? false;
      });
    const taken = able.find((value) => positionOf(value) > positionOf(other(value))) ?? able[0];
    if (!taken) continue;
    const maker = makers.get(taken.id)!;
    const inputs = { ...maker.inputs, [operand]: other(taken) };
    const fused = replaced(maker, inputs, scale === 1 ? {} : { scale });
    makers.delete(taken.id);
    makers.set(node.output.id, { ...fused, output: node.output } as Node);
    if (positionOf(taken) > positionOf(other(taken))) positions.set(node.output.id, positionOf(taken));
  }
  return [...makers.values()].sort((one, next) => positionOf(one.output) - positionOf(next.output));
}
