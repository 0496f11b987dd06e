// A network as a list of nodes, in the order in which they run: the op of each, its inputs and its constants. Nothing
// here knows a device. Shapes are inferred and checked when nodes are added.

import { ShapeError } from '../../errors.ts';
import type { Stored } from '../../kernels/device/storage.ts';
import type { Shape } from '../../kernels/device/tensor.ts';
import type { NodeShapes } from '../ops/op.ts';
import { type OpAttributes, type OpName, ops } from '../ops/table.ts';
import type { Constant, Value } from '../ops/value.ts';

type NodeOf<Name extends OpName> = {
  readonly op: Name;
  readonly attributes: OpAttributes[Name];
  readonly inputs: Readonly<Record<string, Value>>;
  readonly constants: Readonly<Record<string, Constant>>;
  readonly output: Value;
};

export type Node = { [Name in OpName]: NodeOf<Name> }[OpName];

/** Returns the shapes and types of a node's inputs and output, and which operands it has. Default: all values are f32. */
export const shapesOf = (
  { inputs, constants, output }: Node,
  stored: (id: number) => Stored = () => 'f32',
): NodeShapes => ({
  inputs: Object.fromEntries(Object.entries(inputs).map(([name, { shape }]) => [name, shape])),
  output: output.shape,
  stored(operand) {
    const value = operand === 'y' ? output : inputs[operand];
    return value ? stored(value.id) : 'f32';
  },
  has: (operand) => operand in inputs || operand in constants,
});

export interface Graph {
  readonly nodes: Node[];
  readonly inputs: Map<string, Value>;
  readonly outputs: Map<string, Value>;
  values: number;
}

/** Returns an empty graph. */
export const newGraph = (): Graph => ({ nodes: [], inputs: new Map(), outputs: new Map(), values: 0 });

/**
 * Adds an input, which the caller fills before each run. `plan` allocates its memory, unless the caller brings it.
 * @throws ShapeError if the graph has an input of that name.
 */
export function input(graph: Graph, name: string, shape: Shape): Value {
  if (graph.inputs.has(name)) throw new ShapeError(`the graph has two inputs named ${name}`);
  const value = { id: graph.values++, shape };
  graph.inputs.set(name, value);
  return value;
}

/** Adds the concatenation of the values' channels. A single value is returned as it is. */
export function concatenate(graph: Graph, values: readonly Value[]): Value {
  if (values.length === 1) return values[0]!;
  return apply(graph, 'concat', {}, Object.fromEntries(values.map((value, i) => [`x${i}`, value])));
}

/** Makes a value an output, which can be read after a run: no other value shares its memory. */
export function output(graph: Graph, name: string, value: Value): void {
  graph.outputs.set(name, value);
}

/** Inputs or constants by name; those that are undefined are left out. */
type Optional<T> = Readonly<Record<string, T | undefined>>;

function present<T>(record: Optional<T>): Record<string, T> {
  return Object.fromEntries(
    Object.entries(record).filter((entry): entry is [string, T] => entry[1] !== undefined),
  );
}

/**
 * Adds a node and returns its output.
 * @throws ShapeError naming the op, what it expected and what it got, if the inputs or constants do not fit.
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
  for (const [name, expected] of Object.entries(ops[op].constants?.(shapes, attributes) ?? {})) {
    const constant = weights[name];
    if (constant && constant.length !== expected)
      throw new ShapeError(
        `${op}: expected ${name} with ${expected} values, got ${constant.name} with ${constant.length}`,
      );
  }
  const result: Value = { id: graph.values++, shape: ops[op].infer(shapes, attributes) };
  graph.nodes.push({ op, attributes, inputs: given, constants: weights, output: result } as Node);
  return result;
}
