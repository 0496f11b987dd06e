// What an op is: the shape of its output, its cost, its kernels on a device, and its backward pass.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../../kernels/device/device.ts';
import type { Routine, WeightDtype } from '../../kernels/device/routine.ts';
import type { Stored } from '../../kernels/device/storage.ts';
import { columns, type Shape } from '../../kernels/device/tensor.ts';
import type { Constant, Value } from './value.ts';

/** The attributes of ops that have none. */
export type NoAttributes = Record<never, never>;

export type Shapes = Readonly<Record<string, Shape>>;

export interface Op<Attributes> {
  /**
   * Returns the shape of the output.
   * @throws ShapeError if the inputs do not fit together.
   */
  infer(inputs: Shapes, attributes: Attributes): Shape;
  /**
   * Returns the expected length of each constant; absent if the op has none. Constants may be left out if the kernels treat
   * them as optional.
   */
  constants?(inputs: Shapes, attributes: Attributes): Readonly<Record<string, number>>;
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
  /** The inputs that are f32 in every plan, because f16 would lose what the op is for. */
  readonly exact?: readonly string[];
  /** Set if the output is the channels of x from the returned one on, so that it can be a range of x's memory. */
  firstChannel?(attributes: Attributes): number;
  /** Set if the output is the channels of all inputs, one after the other, so that they can be ranges of its memory. */
  readonly joinsInputs?: true;
  /** Returns how consumers can apply the op to x while they load it; undefined if they cannot with these attributes. */
  inLoad?(attributes: Attributes): InLoad | undefined;
  /** Returns whether the kernels can apply an op to x while they load it. */
  loads?(inLoad: InLoad, attributes: Attributes): boolean;
  /** Set if the op adds two inputs, which the op that computes one of them may be able to do (`adds`). */
  addition?(attributes: Attributes): Addition;
  /** Returns whether the kernels can do an addition to the output. */
  adds?(addition: Addition, attributes: Attributes): boolean;
  /**
   * Adds the nodes that compute the output in equal ranges of channels, for values that are too large to be bound whole.
   * Returns the ranges in order; undefined if the op cannot do it with these operands.
   */
  split?(node: SplitNode<Attributes>): readonly Value[] | undefined;
  /** Set if the kernels may keep the constant `weight` transformed, which takes more memory, unless `compact` is set. */
  readonly transformsWeight?: true;
  /** Chooses the kernels for a device; `compact` as in `Conv2dOptions`. */
  forward(
    capabilities: Capabilities,
    node: NodeShapes,
    attributes: Attributes,
    weights: WeightDtype,
    compact: boolean,
  ): Routine;
  /**
   * Adds the nodes that compute the gradients of the operands from `dy`. Returns the gradients by operand, at least
   * those that are needed. The gradient of an input has the shape of the input. The gradient of a constant has the
   * shape [rows, 1, 1, length / rows], and its elements, row by row, are in the constant's natural order. An operand
   * that is left out, such as an index, has no gradient.
   */
  backward?(node: Differentiated<Attributes>): Readonly<Record<string, Value>>;
}

/** An op that consumers apply to x in their loads: nearest upsampling, or act(a·x + b) if it has rows. */
export interface InLoad {
  /** The attributes that the consumers get. */
  readonly attributes: object;
  /** The op that computes the rows a and b, which become the input `affine` of the consumers, from the same operands. */
  readonly rows?: { readonly op: Op<never>; readonly attributes: never };
}

/** An addition y = (x1 + x2)·scale that the op that computes x1 or x2 may be able to do. */
export interface Addition {
  /** The operand that the other summand becomes: of the same shape, or one number per channel and sample. */
  readonly operand: 'residual' | 'embedding';
  readonly scale: number;
  /** The names of the inputs whose ops may do the addition. */
  readonly into: readonly string[];
}

/** The shapes and types of a node's operands and output, from which its kernels are chosen. */
export interface NodeShapes {
  readonly inputs: Shapes;
  readonly output: Shape;
  /**
   * Returns how the plan stores an input, or the output `y`. Kernels are written for f32 and the plan converts
   * (`storedAs`); only a kernel that binds f16 itself needs to know.
   */
  readonly stored: (operand: string) => Stored;
  readonly has: (operand: string) => boolean;
}

/** A node whose values are split: its operands, with the channels of each input in one or several ranges. */
interface SplitNode<Attributes> {
  readonly attributes: Attributes;
  readonly inputs: Readonly<Record<string, readonly Value[]>>;
  readonly constants: Readonly<Record<string, Constant>>;
  /** The number of ranges of the output. */
  readonly ranges: number;
  readonly apply: Apply;
}

/** A node in the backward pass: its operands, its output, and the gradient `dy` of its output. */
export interface Differentiated<Attributes> {
  readonly attributes: Attributes;
  readonly inputs: Readonly<Record<string, Value>>;
  readonly constants: Readonly<Record<string, Constant>>;
  readonly output: Value;
  readonly dy: Value;
  /** Whether the gradient of an operand (input or constant) is needed. */
  readonly needs: (operand: string) => boolean;
  readonly apply: Apply;
}

/** Adds a node to the graph and returns its output. Inputs and constants that are undefined are left out. */
export type Apply = <Attributes>(
  op: Op<Attributes>,
  attributes: NoInfer<Attributes>,
  inputs: Readonly<Record<string, Value | undefined>>,
  constants?: Readonly<Record<string, Constant | undefined>>,
) => Value;

/** `Op.split` of an op that computes each channel from the same channel of all its inputs. */
export const splitByChannels =
  <Attributes>(op: () => Op<Attributes>) =>
  ({ attributes, inputs, ranges, apply }: SplitNode<Attributes>): readonly Value[] | undefined => {
    const entries = Object.entries(inputs);
    if (entries.some(([, list]) => list.length !== ranges)) return undefined;
    return Array.from({ length: ranges }, (_, i) =>
      apply(op(), attributes, Object.fromEntries(entries.map(([name, list]) => [name, list[i]]))),
    );
  };

/** @throws ShapeError with the message if the condition does not hold. */
export const check = (ok: boolean, message: () => string): void => {
  if (!ok) throw new ShapeError(message());
};
/** @throws ShapeError naming the op, the operand and both shapes, if the operand does not have the expected shape. */
export const checkShape = (op: string, operand: string, expected: Shape, actual: Shape | undefined): void =>
  check(
    actual !== undefined && same(expected, actual),
    () => `${op}: expected ${operand} ${shown(expected)}, got ${shown(actual)}`,
  );
export const shown = (shape: Shape | undefined): string => `[${shape?.join(', ') ?? 'nothing'}]`;
export const same = (a: Shape, b: Shape): boolean => a.every((size, i) => size === b[i]);
/** The shape of an operand with one number per channel and sample of `x`. */
export const rowShape = ([c, n]: Shape): Shape => [c, n, 1, 1];
/** The elements of a value, without the padding of its rows. */
export const elements = (shape: Shape): number => shape[0] * columns(shape);
/** `Op.flop` of ops that compute each element of their output on its own. */
export const perElement = ({ output }: Pick<NodeShapes, 'output'>): number => elements(output);
/** `Op.flop` of ops that only move data. */
export const copies = (): number => 0;
/** Whether an op only moves data, so that its output is as exact as its input. */
export const onlyMoves = ({ flop }: Pick<Op<never>, 'flop'>): boolean => flop === copies;
