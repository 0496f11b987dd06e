// The options of the gradient of a strided convolution's input, shared by its methods.

import type { WeightDtype } from '../device/routine.ts';
import type { Shape } from '../device/tensor.ts';

export interface InputGradientOptions {
  /** The shape of the convolution's input, and so of its gradient. */
  readonly x: Shape;
  /** The shape of the convolution's output. */
  readonly dy: Shape;
  readonly stride: number;
  /** Zeros around the input, at most one on each side. */
  readonly padding: readonly [top: number, left: number, bottom: number, right: number];
  /** Adds a tensor of x's shape. */
  readonly residual?: boolean;
  /** Multiplies the result at the end. */
  readonly scale?: number;
  readonly weights: WeightDtype;
  readonly compact?: boolean;
}
