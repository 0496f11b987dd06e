// What an op is: the shape it makes, what it becomes on a device, and what its gradients are made of.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../../kernels/device.ts';
import type { Routine, WeightDtype } from '../../kernels/routine.ts';
import { columns, type Shape } from '../../kernels/tensor.ts';
import type { Constant, Value } from '../value.ts';

export type Shapes = Readonly<Record<string, Shape>>;

export interface Op<Attributes> {
  infer(inputs: Shapes, attributes: Attributes): Shape;
  /** Lengths of its constants; those that are optional are checked only where given. */
  constants(inputs: Shapes, attributes: Attributes): Readonly<Record<string, number>>;
  /**
   * Returns the number of floating-point operations of one run. A multiplication and its addition count as two, any
   * other arithmetic as one per element, copies as none.
   */
  flop(node: Pick<NodeShapes, 'inputs' | 'output'>, attributes: Attributes): number;
  /**
   * Set if a run is one pass over memory without a matrix product, so that gradients recompute the output rather than
   * keep it in memory when memory is short.
   */
  readonly cheap?: true;
  forward(
    capabilities: Capabilities,
    node: NodeShapes,
    attributes: Attributes,
    weights: WeightDtype,
    compact: boolean,
  ): Routine;
  /**
   * Adds the nodes that make the gradients of its operands out of `dy`, and returns them by operand (at least those
   * wanted): for an input a value of the input's shape; for a constant a value [rows, 1, 1, length / rows] whose
   * elements row by row are in the constant's natural order. An operand left out has no gradient (an index).
   */
  backward?(node: Differentiated<Attributes>): Readonly<Record<string, Value>>;
}

/** What a node binds, for choosing its kernels. */
export interface NodeShapes {
  readonly inputs: Shapes;
  readonly output: Shape;
  readonly has: (operand: string) => boolean;
}

/** A node on the way back: what it read and made, and the gradient `dy` of what it made. */
export interface Differentiated<Attributes> {
  readonly attributes: Attributes;
  readonly inputs: Readonly<Record<string, Value>>;
  readonly constants: Readonly<Record<string, Constant>>;
  readonly output: Value;
  readonly dy: Value;
  /** Whether the gradient of an operand (input or constant) is asked for. */
  readonly wants: (operand: string) => boolean;
  readonly apply: Apply;
}

/** Adds a node to the graph and returns its output. Inputs and constants that are undefined are left out. */
export type Apply = <Attributes>(
  op: Op<Attributes>,
  attributes: NoInfer<Attributes>,
  inputs: Readonly<Record<string, Value | undefined>>,
  constants?: Readonly<Record<string, Constant | undefined>>,
) => Value;

/** @throws ShapeError where the shapes do not fit. */
export const want = (ok: boolean, message: () => string): void => {
  if (!ok) throw new ShapeError(message());
};
export const text = (shape: Shape | undefined): string => `[${shape?.join(', ') ?? 'nothing'}]`;
export const same = (a: Shape, b: Shape): boolean => a.every((size, i) => size === b[i]);
/** Whether `z` holds one number for each channel and sample of `x`. */
export const isRow = (x: Shape, z: Shape): boolean =>
  z[0] === x[0] && z[1] === x[1] && z[2] === 1 && z[3] === 1;
export const none = () => ({});

/** The elements of a value, without the padding of its rows. */
export const elements = (shape: Shape): number => shape[0] * columns(shape);
/** `Op.flop` of ops that compute each element of their output on its own. */
export const perElement = ({ output }: Pick<NodeShapes, 'output'>): number => elements(output);
/** `Op.flop` of ops that only move data. */
export const copies = (): number => 0;

/** @throws ShapeError where a residual does not have the result's shape. */
export function residualFits(op: string, y: Shape, residual: Shape | undefined): void {
  want(
    !residual || same(y, residual),
    () => `${op}: the residual is ${text(residual)}, the result ${text(y)}`,
  );
}
