// Reverse-mode differentiation: what the gradients of a graph's values are made of, as more nodes of the same graph.

import { ShapeError } from '../kernels/errors.ts';
import { apply, type Constant, type Graph, type Node, type Value } from './graph.ts';
import type { Differentiated, Op } from './ops/op.ts';
import { ops } from './ops/table.ts';

export interface GradientOptions {
  /** Gradients of the scalar that is differentiated with regard to values of the graph: where the way back begins. */
  readonly seeds: readonly { readonly of: Value; readonly gradient: Value }[];
  /** Values whose gradients are wanted, such as inputs. */
  readonly values?: readonly Value[];
  /** Constants whose gradients are wanted, by their names. */
  readonly constants?: (name: string) => boolean;
  readonly bytes?: number | undefined;
}

export interface Gradients {
  /** By the id of the value; a value that nothing depends on has none. */
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
 * Adds to a graph the gradients of a scalar, known by its gradients with regard to `seeds`.
 * @throws ShapeError where a seed does not have its value's shape, or an op on the way has no derivative.
 */
export function differentiate(graph: Graph, options: GradientOptions): Gradients {
  const forward = [...graph.nodes];
  const matter = dependents(graph, options);
  const wantedConstants = options.constants ?? (() => false);
  const gradients = new Map<number, Value>();
  const ofConstants = new Map<string, Value>();
  const sum = (x1: Value | undefined, x2: Value) => (x1 ? apply(graph, 'add', {}, { x1, x2 }) : x2);

  for (const { of, gradient } of options.seeds) {
    if (of.shape.some((size, i) => gradient.shape[i] !== size))
      throw new ShapeError(
        `gradient: the seed is [${gradient.shape.join(', ')}], the value [${of.shape.join(', ')}]`,
      );
    gradients.set(of.id, sum(gradients.get(of.id), gradient));
  }
  for (const node of forward.reverse()) {
    const dy = gradients.get(node.output.id);
    if (!dy || !matter.has(node.output.id)) continue;
    const wants = (operand: string): boolean => {
      const value = node.inputs[operand];
      const constant: Constant | undefined = node.constants[operand];
      return value ? matter.has(value.id) : constant !== undefined && wantedConstants(constant.name);
    };
    const made = backward(graph, node, dy, wants);
    for (const [operand, gradient] of Object.entries(made)) {
      if (!wants(operand)) continue;
      const value = node.inputs[operand];
      if (value) gradients.set(value.id, sum(gradients.get(value.id), gradient));
      else {
        const { name } = node.constants[operand]!;
        ofConstants.set(name, sum(ofConstants.get(name), gradient));
      }
    }
  }
  return { values: gradients, constants: ofConstants };
}

function backward(
  graph: Graph,
  node: Node,
  dy: Value,
  wants: (operand: string) => boolean,
): Readonly<Record<string, Value>> {
  const op = ops[node.op] as Op<typeof node.attributes>;
  if (!op.backward) throw new ShapeError(`gradient: ${node.op} has no derivative`);
  const add: Differentiated<never>['apply'] = (name, attributes, inputs, constants) =>
    apply(graph, name, attributes, inputs, constants);
  return op.backward({ ...node, dy, wants, apply: add });
}
