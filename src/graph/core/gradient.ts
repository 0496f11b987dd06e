// Reverse-mode differentiation: adds the nodes that compute gradients to the graph that they differentiate.

import { ShapeError } from '../../errors.ts';
import type { Apply } from '../ops/op.ts';
import { nameOfOp, opOf } from '../ops/table.ts';
import type { Constant, Value } from '../ops/value.ts';
import { apply, concatenate, type Graph, type Node } from './graph.ts';
import { recompute } from './recompute.ts';

export interface GradientOptions {
  /** Where the backward pass begins: values of the graph, and the gradients of the scalar with respect to them. */
  readonly seeds: readonly { readonly of: Value; readonly gradient: Value }[];
  /** Values whose gradients are returned, such as inputs. */
  readonly values?: readonly Value[];
  /** Whether the gradient of the constant with this name is returned. Default: of none. */
  readonly constants?: (name: string) => boolean;
  /**
   * At most this many bytes of activations are alive at once in a run (`Cost.activationBytes`; inputs and the kernels'
   * scratch memory are not included). If the values that the backward pass reads take more, some of them are recomputed,
   * at most the whole forward pass once. If the budget cannot be met, the least possible memory is used. Default: no limit.
   */
  readonly bytes?: number | undefined;
}

export interface Gradients {
  /** The gradients of `GradientOptions.values`, by id. A value that no seed depends on has none. */
  readonly values: ReadonlyMap<number, Value>;
  /** The gradients of constants, by name: [rows, 1, 1, length / rows], row by row in the constant's natural order. */
  readonly constants: ReadonlyMap<string, Value>;
}

/** Returns the ids of all values that depend on a value or constant whose gradient is returned. */
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
 * Sums the gradient contributions of all consumers of a value, in the order in which they were produced, so that results
 * are deterministic. The contributions of slices that together cover the whole value are first concatenated, which takes no
 * addition and mostly no copy.
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

/** Concatenates values. If they are all slices of one value, in order and complete, returns that value. */
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
  return concatenate(graph, parts);
}

/**
 * Adds the gradients of a scalar to a graph. The scalar itself need not be in the graph: `seeds` hold its gradients with
 * respect to values of the graph. The existing nodes stay as they are, at the beginning of the graph.
 * @throws ShapeError if a seed does not have its value's shape, or an op in between has no derivative.
 */
export function differentiate(graph: Graph, options: GradientOptions): Gradients {
  const forward = [...graph.nodes];
  const active = dependents(graph, options);
  const isActive = options.constants ?? (() => false);
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
        `gradient: expected a seed [${of.shape.join(', ')}], got [${gradient.shape.join(', ')}]`,
      );
    add(parts, of.id, gradient);
  }
  for (const node of forward.toReversed()) {
    if (!active.has(node.output.id)) continue;
    const dy = gradientOf(node.output.id);
    if (!dy) continue;
    const needs = (operand: string): boolean => {
      const value = node.inputs[operand];
      const constant: Constant | undefined = node.constants[operand];
      return value ? active.has(value.id) : constant !== undefined && isActive(constant.name);
    };
    if (![...Object.keys(node.inputs), ...Object.keys(node.constants)].some(needs)) continue;
    for (const [operand, gradient] of Object.entries(backward(graph, node, dy, needs))) {
      if (!needs(operand)) continue;
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
  needs: (operand: string) => boolean,
): Readonly<Record<string, Value>> {
  const op = opOf(node);
  if (!op.backward) throw new ShapeError(`gradient: ${node.op} has no derivative`);
  const add: Apply = (added, attributes, inputs, constants) =>
    apply(graph, nameOfOp(added), attributes as never, inputs, constants);
  return op.backward({ ...node, dy, needs, apply: add });
}
