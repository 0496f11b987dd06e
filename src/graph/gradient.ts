// Reverse-mode differentiation: what the gradients of a graph's values are made of, as more nodes of the same graph.

import { ShapeError } from '../errors.ts';
import { apply, type Graph, type Node } from './graph.ts';
import type { Apply } from './ops/op.ts';
import { nameOf, opOf } from './ops/table.ts';
import { recompute } from './recompute.ts';
import type { Constant, Value } from './value.ts';

export interface GradientOptions {
  /** Gradients of the scalar that is differentiated with regard to values of the graph: where the way back begins. */
  readonly seeds: readonly { readonly of: Value; readonly gradient: Value }[];
  /** Values whose gradients are wanted, such as inputs. */
  readonly values?: readonly Value[];
  /** Constants whose gradients are wanted, by their names. */
  readonly constants?: (name: string) => boolean;
  /**
   * Most bytes of activations alive at once in a run (`Cost.activationBytes`; memory of inputs and scratch of kernels
   * come on top): where keeping all that the gradients read takes more, some of it is made again on the way back, at
   * most the whole forward pass, and the budget is met or missed by as little as can be. Unlimited where not given.
   */
  readonly bytes?: number | undefined;
}

export interface Gradients {
  /** Of the values asked for, by their ids; one that no seed depends on has none. */
  readonly values: ReadonlyMap<number, Value>;
  /** By the name of the constant: [rows, 1, 1, length / rows], in its natural order row by row. */
  readonly constants: ReadonlyMap<string, Value>;
}

/** Ids of values through which a wanted value or constant acts. */
function dependents(graph: Graph, { values = [], constants = () => false }: GradientOptions): Set<number> {
  const found = new Set(values.map(({ id }) => id));
  for (const { inputs, constants: weights, output } of graph.nodes)
    if (
      Object.values(inputs).some(({ id }) => found.has(id)) ||
      Object.values(weights).some(({ name }) => constants(name))
    )
      found.add(output.id);
  return found;
}

/**
 * The sum of what the readers of a value say of it, in the order of saying. Slices that make up the whole are put
 * together: their parts lie beside each other without an addition, and mostly without a copy.
 */
function sum(graph: Graph, parts: readonly Value[]): Value {
  const makers = parts.map((part) => makerOf(graph, part));
  const padded = makers.filter((node) => node?.op === 'padChannels');
  const sorted = padded.toSorted((one, other) => one.attributes.from - other.attributes.from);
  let channels = 0;
  for (const { attributes, inputs } of sorted)
    channels = attributes.from === channels ? channels + inputs.x!.shape[0] : Number.NaN;
  if (sorted.length < 2 || channels !== parts[0]!.shape[0])
    return parts.reduce((x1, x2) => apply(graph, 'add', {}, { x1, x2 }));
  const whole = together(
    graph,
    sorted.map(({ inputs }) => inputs.x!),
  );
  const others = parts.filter((_, i) => makers[i]?.op !== 'padChannels');
  return others.reduce((x1, x2) => apply(graph, 'add', {}, { x1, x2 }), whole);
}

const makerOf = (graph: Graph, { id }: Value): Node | undefined =>
  graph.nodes.findLast(({ output }) => output.id === id);

/** The concatenation of values; where they are all the slices of one value, that value. */
function together(graph: Graph, parts: readonly Value[]): Value {
  const makers = parts.map((part) => makerOf(graph, part));
  const [first] = makers;
  const whole = first?.op === 'slice' ? first.inputs.x! : undefined;
  let channels = 0;
  for (const maker of makers)
    channels =
      maker?.op === 'slice' && maker.inputs.x === whole && maker.attributes.from === channels
        ? channels + maker.attributes.count
        : Number.NaN;
  if (whole && channels === whole.shape[0]) return whole;
  return apply(graph, 'concat', {}, Object.fromEntries(parts.map((part, i) => [`x${i}`, part])));
}

/**
 * Adds to a graph the gradients of a scalar, known by its gradients with regard to `seeds`. The nodes that were there
 * stay as they are, the first of the graph.
 * @throws ShapeError where a seed does not have its value's shape, or an op on the way has no derivative.
 */
export function differentiate(graph: Graph, options: GradientOptions): Gradients {
  const forward = [...graph.nodes];
  const matter = dependents(graph, options);
  const wantedConstants = options.constants ?? (() => false);
  const parts = new Map<number, Value[]>();
  const partsOfConstants = new Map<string, Value[]>();
  const add = <Key>(to: Map<Key, Value[]>, key: Key, gradient: Value) =>
    to.set(key, [...(to.get(key) ?? []), gradient]);
  const gradients = new Map<number, Value>();
  const gradientOf = (id: number): Value | undefined => {
    const given = parts.get(id);
    if (given && !gradients.has(id)) gradients.set(id, sum(graph, given));
    return gradients.get(id);
  };

  for (const { of, gradient } of options.seeds) {
    if (of.shape.some((size, i) => gradient.shape[i] !== size))
      throw new ShapeError(
        `gradient: the seed is [${gradient.shape.join(', ')}], the value [${of.shape.join(', ')}]`,
      );
    add(parts, of.id, gradient);
  }
  for (const node of forward.toReversed()) {
    if (!matter.has(node.output.id)) continue;
    const dy = gradientOf(node.output.id);
    if (!dy) continue;
    const wants = (operand: string): boolean => {
      const value = node.inputs[operand];
      const constant: Constant | undefined = node.constants[operand];
      return value ? matter.has(value.id) : constant !== undefined && wantedConstants(constant.name);
    };
    if (![...Object.keys(node.inputs), ...Object.keys(node.constants)].some(wants)) continue;
    for (const [operand, gradient] of Object.entries(backward(graph, node, dy, wants))) {
      if (!wants(operand)) continue;
      const value = node.inputs[operand];
      if (value) add(parts, value.id, gradient);
      else add(partsOfConstants, node.constants[operand]!.name, gradient);
    }
  }
  const values = new Map<number, Value>();
  for (const { id } of options.values ?? []) {
    const gradient = gradientOf(id);
    if (gradient) values.set(id, gradient);
  }
  const constants = new Map([...partsOfConstants].map(([name, given]) => [name, sum(graph, given)]));
  recompute(graph, forward.length, [...values.values(), ...constants.values()], options.bytes);
  return { values, constants };
}

function backward(
  graph: Graph,
  node: Node,
  dy: Value,
  wants: (operand: string) => boolean,
): Readonly<Record<string, Value>> {
  const op = opOf(node);
  if (!op.backward) throw new ShapeError(`gradient: ${node.op} has no derivative`);
  const add: Apply = (added, attributes, inputs, constants) =>
    apply(graph, nameOf(added), attributes as never, inputs, constants);
  return op.backward({ ...node, dy, wants, apply: add });
}
