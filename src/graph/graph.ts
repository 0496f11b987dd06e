// A network as a list of nodes in the order of their making: what runs, on what, with which constants.
// Nothing here knows a device; shapes are inferred, and refused, as nodes are added.

import { ShapeError } from '../errors.ts';
import type { Shape } from '../kernels/tensor.ts';
import type { NodeShapes } from './ops/op.ts';
import { type OpAttributes, type OpName, ops } from './ops/table.ts';
import type { Constant, Value } from './value.ts';

export type NodeOf<Name extends OpName> = {
  readonly op: Name;
  readonly attributes: OpAttributes[Name];
  readonly inputs: Readonly<Record<string, Value>>;
  readonly constants: Readonly<Record<string, Constant>>;
  readonly output: Value;
};

export type Node = { [Name in OpName]: NodeOf<Name> }[OpName];

/** The shapes that a node reads and makes, and which of its optional operands it has. */
export const shapesOf = ({ inputs, constants, output }: Node): NodeShapes => ({
  inputs: Object.fromEntries(Object.entries(inputs).map(([name, { shape }]) => [name, shape])),
  output: output.shape,
  has: (operand) => operand in inputs || operand in constants,
});

export interface Graph {
  readonly nodes: Node[];
  readonly inputs: Map<string, Value>;
  readonly outputs: Map<string, Value>;
  values: number;
}

/** An empty graph. */
export const newGraph = (): Graph => ({ nodes: [], inputs: new Map(), outputs: new Map(), values: 0 });

/** A value of the graph's outside world; `plan` gives it memory, or takes the caller's. */
export function input(graph: Graph, name: string, shape: Shape): Value {
  if (graph.inputs.has(name)) throw new ShapeError(`the graph has two inputs named ${name}`);
  const value = { id: graph.values++, shape };
  graph.inputs.set(name, value);
  return value;
}

/** Marks a value as wanted outside: its memory is its own for the whole run. */
export function output(graph: Graph, name: string, value: Value): void {
  graph.outputs.set(name, value);
}

/** Inputs or constants that may be absent are simply left out. */
type Optional<T> = Readonly<Record<string, T | undefined>>;

function present<T>(record: Optional<T>): Record<string, T> {
  return Object.fromEntries(
    Object.entries(record).filter((entry): entry is [string, T] => entry[1] !== undefined),
  );
}

/**
 * Adds a node and returns what it makes.
 * @throws ShapeError naming the op and both numbers, where the inputs do not fit.
 */
export function apply<Name extends OpName>(
  graph: Graph,
  op: Name,
  attributes: OpAttributes[Name],
  inputs: Optional<Value>,
  constants: Optional<Constant> = {},
): Value {
  const given = present(inputs);
  const weights = present(constants);
  const shapes = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, value.shape]));
  for (const [name, expected] of Object.entries(ops[op].constants(shapes, attributes))) {
    const constant = weights[name];
    if (constant && constant.length !== expected)
      throw new ShapeError(
        `${op}: ${constant.name} holds ${constant.length} values, ${name} wants ${expected}`,
      );
  }
  const made: Value = { id: graph.values++, shape: ops[op].infer(shapes, attributes) };
  graph.nodes.push({ op, attributes, inputs: given, constants: weights, output: made } as Node);
  return made;
}
